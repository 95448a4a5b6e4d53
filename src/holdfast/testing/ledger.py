"""A ledger kept in memory: same contract as the one on a file, under the test's clock, with delays, failures and crashes on demand."""

from collections.abc import Callable, Sequence

from holdfast.clock import Clock
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Use
from holdfast.policy.allowance import SLOTS, Rows, granted

AccountRows = dict[str, dict[tuple[int, str], int]]


class MemoryLedger:
    """A `holdfast.execution.ledger.Ledger` without a file.

    rows: account -> (slot, holder) -> amount; give the same dict to a second ledger and both share it as two processes do. What is
    asked is carried out at once and answered `delay_ns` later. failing: while set, nothing is carried out and this is the answer.
    trips: how often a lease was asked.
    """

    def __init__(self, clock: Clock, holder: str = "memory", *, rows: AccountRows | None = None, delay_ns: int = 0) -> None:
        self.rows: AccountRows = {} if rows is None else rows
        self.delay_ns = delay_ns
        self.failing: StorageError | None = None
        self.trips = 0
        self._clock = clock
        self._holder = holder
        self._dead = False

    def lease(self, requests: Sequence[LeaseRequest], done: Callable[[Sequence[Lease] | StorageError], None]) -> None:
        self.trips += 1
        answer: Sequence[Lease] | StorageError = self.failing or [self._grant(request) for request in requests]
        self._answer(lambda: done(answer))

    def report(self, uses: Sequence[Use], done: Callable[[StorageError | None], None]) -> None:
        failing = self.failing
        if failing is None and not self._dead:
            for use in uses:
                self._add(use.account, use.slot, use.change)
        self._answer(lambda: done(failing))

    def close(self) -> None:
        self._dead = True

    def crash(self) -> None:
        """From now on nothing is carried out or answered, as after kill -9."""
        self._dead = True

    def spent(self, account: str) -> int:
        """Everything in the account, whatever the window."""
        return sum(self.rows.get(account, {}).values())

    def _grant(self, request: LeaseRequest) -> Lease:
        slots: dict[int, int] = {}
        others = 0
        for (slot, holder), amount in self.rows.get(request.account, {}).items():
            if slot >= request.first - SLOTS and amount:
                slots[slot] = slots.get(slot, 0) + amount
                others += amount if holder != self._holder else 0
        rows = Rows(tuple(sorted(slots.items())), others)
        amount = granted(request.limit, rows.used, request.need, request.least, request.ahead)
        if not self._dead:
            self._add(request.account, request.last, amount)
        return Lease(amount, rows)

    def _add(self, account: str, slot: int, change: int) -> None:
        rows = self.rows.setdefault(account, {})
        row = (slot, self._holder)
        rows[row] = max(0, rows.get(row, 0) + change)

    def _answer(self, answer: Callable[[], None]) -> None:
        self._clock.call_later(self.delay_ns, lambda: None if self._dead else answer())
