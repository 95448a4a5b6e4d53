"""What a call takes from its limits and gives back, and the accounts it takes from. `execution.limiter` decides."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.policy.allowance import FOREVER_NS, NO_MARK, SLOTS, Allowance, Slice, Window
from holdfast.policy.limit import Limit, LimitReached, Unit

TOLD_MARKS = 10_000
RESTING_NS = 400 * 86_400 * SECOND
"""How long the ledger keeps what a run or an interaction has spent in total after it last asked: neither comes back after a year."""


class Ask(Struct, frozen=True, kw_only=True):
    """What a call may use. calls: counted by `calls` limits. usd_least, usd_most: in nano-dollars, least <= most: any amount between
    will do, the most that fits is reserved; tokens likewise."""

    calls: int = 1
    usd_least: int
    usd_most: int
    tokens_least: int = 0
    tokens_most: int = 0

    @property
    def least(self) -> "Amounts":
        return self.usd_least, self.calls, self.tokens_least

    @property
    def most(self) -> "Amounts":
        return self.usd_most, self.calls, self.tokens_most


Amounts = tuple[int, int, int]
"""So much of each unit, in the order of `UNITS`."""

UNITS: tuple[Unit, Unit, Unit] = ("usd", "calls", "tokens")


class LedgerUnavailable(Struct, frozen=True):
    """The limits could not be checked, so the call must not run. reason: one sentence with the way out. own: it is this process that
    cannot, not the ledger."""

    reason: str
    own: bool = False


class Settling(Protocol):
    """The limiter as its reservations see it."""

    overruns: int

    def late_change(self, account: "Account", part: Slice, taken: int, change: int) -> None: ...

    def mark_reached(self, account: "Account") -> None: ...


class Reservation:
    """Amounts taken for one call from all its limits; end it exactly once, by `settle` or `cancel`. A second end does nothing.

    amounts: what the call may use, between the ask's least and most.
    """

    __slots__ = ("_limiter", "_open", "_parts", "amounts")

    def __init__(self, limiter: Settling, parts: "list[tuple[Account, Slice]]", amounts: Amounts) -> None:
        self._limiter = limiter
        self._parts = parts
        self._open = True
        self.amounts = amounts

    @property
    def usd(self) -> int:
        """Nano-dollars that the call may cost."""
        return self.amounts[0]

    @property
    def tokens(self) -> int:
        """Tokens that the call may read and generate."""
        return self.amounts[2]

    def settle(self, usd: int, tokens: int) -> int:
        """Count what was used and return the rest to the limits; the call itself stays counted.

        Returns by how many nano-dollars `usd` exceeds the reservation, normally 0: it is counted in full and in `Limiter.overruns`.
        """
        return self._end((usd, self.amounts[1], tokens))

    def cancel(self) -> None:
        """Return everything, the call included: nothing was sent."""
        self._end((0, 0, 0))

    def _end(self, amounts: Amounts) -> int:
        if not self._open:
            return 0
        self._open = False
        for account, part in self._parts:
            taken, used = self.amounts[account.unit], amounts[account.unit]
            part.reserved -= taken
            if used != taken:
                part.cells[part.at] += used - taken
            if used <= taken and part is account.slice:
                part.free += taken - used
                spent = account.known - part.free - part.reserved - account.older_reserved
            else:
                self._limiter.late_change(account, part, taken, used - taken)
                spent = account.spent
            if spent >= account.next_mark:
                self._limiter.mark_reached(account)
        if amounts[0] <= self.amounts[0]:
            return 0
        self._limiter.overruns += 1
        return amounts[0] - self.amounts[0]


Outcome = Reservation | LimitReached | LedgerUnavailable


class Book:
    """The accounts of limits that count the same thing; `limit` is the tightest of them."""

    __slots__ = ("_told", "accounts", "least_mark", "limit", "marks", "window")

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.window = Window.of(limit.per_ns)
        self.marks = tuple((mark, limit) for mark in sorted(limit.marks))
        self.least_mark = self.marks[0][0] if self.marks else NO_MARK
        self.accounts: dict[str, Account] = {}
        self._told: dict[tuple[str, int], int] = {}

    def add(self, limit: Limit) -> None:
        self.limit = min(self.limit, limit, key=lambda each: each.amount)
        self.marks = tuple(sorted((*self.marks, *((mark, limit) for mark in limit.marks)), key=lambda pair: pair[0]))
        self.least_mark = self.marks[0][0] if self.marks else NO_MARK

    def reach_marks(self, account: "Account", now_ns: int, spent: int) -> list[tuple[Limit, int]]:
        """The marks that `spent` reaches and that were not told yet in this window; arms the next."""
        account.next_mark = NO_MARK
        reached = []
        for mark, limit in self.marks:
            if self.is_told(account, mark, now_ns):
                continue
            if mark > spent:
                account.next_mark = mark
                break
            reached.append((limit, mark))
            self.told(account, mark, now_ns)
        return reached

    def is_told(self, account: "Account", mark: int, now_ns: int) -> bool:
        """Whether this process came upon the mark in this window already."""
        slot = self._told.get((account.value, mark))
        return slot is not None and self.window.slot(now_ns) <= slot + SLOTS

    def told(self, account: "Account", mark: int, now_ns: int) -> None:
        self._told.pop((account.value, mark), None)
        self._told[account.value, mark] = self.window.slot(now_ns)
        if len(self._told) > TOLD_MARKS:
            del self._told[next(iter(self._told))]


class Account(Allowance):
    """An allowance with its name, its next mark and the calls that wait for the ledger.

    leased: the latest slot in which this process ever held a slice of it, -1 for none.
    """

    __slots__ = ("asking", "book", "idle_sweeps", "key", "leased", "next_mark", "queue", "recent", "swept_free", "unit", "value")

    def __init__(self, book: Book, value: str) -> None:
        super().__init__(book.window)
        self.book = book
        self.value = value
        self.key = book.limit.account(value)
        self.unit = UNITS.index(book.limit.unit)
        self.next_mark = book.least_mark
        self.queue: deque[Waiting] = deque()
        self.asking = False
        self.recent = 0
        self.idle_sweeps = 0
        self.swept_free = -1
        self.leased = -1

    @property
    def slice_size(self) -> int:
        """Marks bound it too: other processes must take a slice for spent, and none may reach a mark by that."""
        return max(8 * self.recent, min(self.book.limit.amount, self.book.least_mark) // 50)

    def leaves_ns(self, slot: int, wall_ns: int) -> int:
        """Wall time from which on the ledger may forget what is charged to the slot."""
        if self.window.total and self.book.limit.scope in ("run", "interaction"):
            return min(wall_ns + RESTING_NS, FOREVER_NS)
        return self.window.leaves_ns(slot)

    def least(self, ask: Ask) -> int:
        """What the call cannot do without."""
        return ask.least[self.unit]

    def reached(self, asked: int) -> LimitReached:
        limit = self.book.limit
        return LimitReached(
            limit=limit,
            value=self.value,
            spent=max(0, self.spent),
            reserved=self.reserved,
            asked=asked,
            resets_at_ns=self.next_chance_ns(limit, asked),
        )


class Waiting:
    """A call that has taken `parts` (account, slice, amount) and lacks the rest. amounts: what all limits so far allow."""

    __slots__ = ("amounts", "ask", "done", "lacking", "latest_ns", "over", "parts")

    def __init__(self, ask: Ask, lacking: list[Account], done: Callable[[Outcome], None]) -> None:
        self.ask = ask
        self.done = done
        self.amounts = [*ask.most]
        self.lacking = lacking
        self.parts: list[tuple[Account, Slice, int]] = []
        self.latest_ns = 0
        self.over = False
