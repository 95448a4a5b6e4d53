"""A ledger kept in memory: same contract as the one on a file, under the test's clock, with delays, failures and crashes on demand."""

from collections.abc import Callable, Sequence

from holdfast.clock import Clock
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Remains, Use, row_digest
from holdfast.policy.allowance import SLOTS, Cells, Rows, granted

AccountRows = dict[str, dict[tuple[int, str], int]]
Told = dict[tuple[str, int], int]


class MemorySlate:
    """A `holdfast.execution.ledger.Slate` that outlives nothing but a simulated crash: `remains` is what it shows after one."""

    def __init__(self) -> None:
        self._open: dict[bytes, list[int]] = {}

    def open(self, account: str, slot: int, used: int) -> tuple[Cells, int]:
        cell = self._open[row_digest(account, slot)] = [used]
        return cell, 0

    def close(self, account: str, slot: int, cells: Cells, at: int) -> None:
        del self._open[row_digest(account, slot)]

    def remains(self, holder: str) -> Remains:
        return Remains(holder, {digest: cell[0] for digest, cell in self._open.items()})


class MemoryLedger:
    """A `holdfast.execution.ledger.Ledger` without a file.

    rows: account -> (slot, holder) -> amount; give the same dict to a second ledger and both share it as two processes do. What is
    asked is carried out at once and answered `delay_ns` later. failing: while set, nothing is carried out and this is the answer.
    trips: how often a lease was asked. told: (account, mark) -> slot, shared likewise.
    """

    def __init__(
        self, clock: Clock, holder: str = "memory", *, rows: AccountRows | None = None, told: Told | None = None, delay_ns: int = 0
    ) -> None:
        self.rows: AccountRows = {} if rows is None else rows
        self.told: Told = {} if told is None else told
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

    def probe(self, done: Callable[[StorageError | None], None]) -> None:
        failing = self.failing
        self._answer(lambda: done(failing))

    def tell(self, account: str, mark: int, slot: int, leaves_ns: int, done: Callable[[bool | StorageError], None]) -> None:
        told = self.told.get((account, mark))
        answer: bool | StorageError = self.failing or (told is None or slot > told + SLOTS)
        if answer is True and not self._dead:
            self.told[account, mark] = slot
        self._answer(lambda: done(answer))

    def recover(self, remains: Sequence[Remains], done: Callable[[StorageError | None], None]) -> None:
        failing = self.failing
        if failing is None and not self._dead:
            for each in remains:
                for account, rows in self.rows.items():
                    for slot, holder in [*rows]:
                        used = (each.used or {}).get(row_digest(account, slot))
                        if holder == each.holder and used is not None:
                            rows[slot, holder] = used
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
        others = own = 0
        for (slot, holder), amount in self.rows.get(request.account, {}).items():
            if slot >= request.first - SLOTS and amount:
                slots[slot] = slots.get(slot, 0) + amount
                others += amount if holder != self._holder else 0
                own += amount if holder == self._holder and slot == request.last else 0
        rows = Rows(tuple(sorted(slots.items())), others, own)
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
