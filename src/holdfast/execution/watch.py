"""Tells what limits come to before they refuse: marks that spending has reached, and the pace at which a limit will be."""

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from holdfast.clock import Clock
from holdfast.errors import StorageError
from holdfast.execution.ledger import Ledger
from holdfast.execution.reservation import Account
from holdfast.policy.limit import Limit, LimitReached
from holdfast.policy.pacing import reaches_at_ns

REACHED_PERCENT = 95
"""A limit that refuses calls from here on counts as reached: the last calls' worth of it fits no call any more."""
_PACE = 0
"""The ledger's name for the forecast, among marks, which are amounts above zero."""


class Notice(Struct, frozen=True, kw_only=True):
    """mark: the amount that was reached, None for a forecast. spent: so far. reaches_at_ns: wall time at which the limit is reached at
    the present rate; None: not within its window's length."""

    limit: Limit
    value: str
    mark: int | None
    spent: int
    reaches_at_ns: int | None


class Watch:
    """tell: hears each notice once per mark and window, whichever of the processes on a ledger comes upon it."""

    def __init__(self, ledger: Ledger, clock: Clock, tell: Callable[[Notice], None]) -> None:
        self._ledger = ledger
        self._wall_ns = clock.wall_ns
        self._tell = tell

    def look(self, account: Account) -> None:
        """After anything was spent, or news came from the ledger."""
        self._reached(account, account.spent)

    def look_ahead(self, account: Account) -> None:
        """After news came from the ledger."""
        self.look(account)
        now, limit = self._wall_ns(), account.book.limit
        if not limit.paced or account.book.is_told(account, _PACE, now):
            return
        at_ns = reaches_at_ns(account.window, account.used_slots(), limit.amount, now)
        if at_ns is not None:
            account.book.told(account, _PACE, now)
            self._ask(account, limit, None, account.spent, at_ns)

    def full(self, account: Account, reached: LimitReached) -> None:
        """The limit refuses: what is left of it does not count as unspent."""
        amount = reached.limit.amount
        if account.next_mark <= amount and (reached.spent + reached.reserved) * 100 >= amount * REACHED_PERCENT:
            self._reached(account, amount)

    def _reached(self, account: Account, spent: int) -> None:
        now = self._wall_ns()
        marks = account.book.reach_marks(account, now, spent)
        if marks:
            at_ns = reaches_at_ns(account.window, account.used_slots(), account.book.limit.amount, now)
            for limit, mark in marks:
                self._ask(account, limit, mark, spent, at_ns)

    def _ask(self, account: Account, limit: Limit, mark: int | None, spent: int, at_ns: int | None) -> None:
        """Of several processes that come upon a mark, the ledger lets one tell it."""
        notice = Notice(limit=limit, value=account.value, mark=mark, spent=spent, reaches_at_ns=at_ns)
        now = self._wall_ns()
        slot = account.window.slot(now)
        self._ledger.tell(account.key, mark or _PACE, slot, account.leaves_ns(slot, now), partial(self._answered, notice))

    def _answered(self, notice: Notice, first: bool | StorageError) -> None:
        if first is not False:  # where the ledger cannot say, twice is better than never
            self._tell(notice)
