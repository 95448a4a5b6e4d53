"""Limits that hold: reserves the worst case of a call against every limit it draws on, from slices leased ahead of need.

The theorem: what was settled never exceeds a limit in any window, in any interleaving, across processes that share the ledger, after
kill -9. A slice counts as spent in the ledger before it is used (policy.allowance says why windows then hold), calls take from the
slice before they are made, and only what was certainly not used goes back.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from holdfast.clock import MILLISECOND, SECOND, Clock, Timer
from holdfast.errors import StorageError
from holdfast.execution.ledger import Lease, LeaseRequest, Ledger, Use
from holdfast.execution.reservation import Account, Ask, Book, LedgerUnavailable, Outcome, Reservation, Waiting
from holdfast.policy.allowance import FOREVER_NS, SLOTS
from holdfast.policy.limit import Limit, LimitReached

__all__ = ["Ask", "Charge", "LedgerUnavailable", "Limiter", "Outcome", "Reservation"]

SWEEP_NS = SECOND
SWEEP_STEP_NS = 10 * MILLISECOND
SWEEP_ACCOUNTS = 500
"""Accounts looked at in one step: about 100 us of work, so that 100,000 accounts never hold up a call."""
IDLE_SWEEPS = 300
"""A total limit's account that rested for so many sweeps (about five minutes) is returned and forgotten."""
REPORT_NS = 50 * MILLISECOND
OTHERS_NS = 100 * MILLISECOND
"""How long a refusal is repeated without asking while other holders might give something back."""

Charge = tuple[Limit, str]
_CLOSING = LedgerUnavailable("Holdfast is shutting down; send the call again once it is back.")


class Limiter:
    """Reserves for calls; one per process and ledger holder. All callbacks come on the caller's thread.

    on_mark(limit, value, mark, spent): an account's spending reached one of its limit's marks; at most once per mark and window in
    this process: a restart, or another process on the same ledger, tells it again. overruns: settlements above their reservation.
    report_failures: reports that the ledger could not write.
    """

    def __init__(self, ledger: Ledger, clock: Clock, on_mark: Callable[[Limit, str, int, int], None] | None = None) -> None:
        self.trouble = ""
        self.overruns = 0
        self.report_failures = 0
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._wall_ns = clock.wall_ns
        self._on_mark = on_mark
        self._books: dict[Limit, Book] = {}
        self._shared = False
        self._asking: list[Account] = []
        self._changes: dict[tuple[str, int], tuple[int, int]] = {}
        self._flushing: Timer | None = None
        self._reporting: Timer | None = None
        self._sweeping: Timer | None = None
        self._to_sweep: Iterator[Account] = iter(())
        self._in_flight = 0
        self._closed = False
        self._close_done: Callable[[StorageError | None], None] = self._reported

    @property
    def accounts(self) -> int:
        """How many accounts are held in memory."""
        return len(self._all_accounts())

    def reserve(self, charges: Sequence[Charge], ask: Ask, done: Callable[[Outcome], None]) -> None:
        """Take `ask` from every limit in `charges`, each with the value that is counted (an agent's name, a user's id), or from none.

        `done` is called before this returns when the slices in hand suffice, or certainly nothing is left; else after one trip to the
        ledger, in the order of asking for each account.
        """
        now = self._wall_ns()
        amounts = (ask.usd_most, ask.calls, ask.tokens_most)
        parts: list[tuple[Account, int]] = []
        books = self._books
        try:
            for limit, value in charges:
                account = books[limit].accounts[value]
                if account.free < amounts[account.unit] or not account.from_ns <= now < account.renew_ns or account.queue:
                    return self._reserve_slowly(charges, ask, done)
                parts.append((account, account.last))
        except KeyError:
            return self._reserve_slowly(charges, ask, done)
        if self._shared or self._closed:
            return self._reserve_slowly(charges, ask, done)
        for account, _ in parts:
            amount = amounts[account.unit]
            account.reserved += amount
            account.free = free = account.free - amount
            if free < account.low:
                self._lease(account)
        return done(Reservation(self, parts, amounts))

    def close(self, done: Callable[[StorageError | None], None]) -> None:
        """Return every slice and report durably, then call `done`; waiting calls hear LedgerUnavailable, later ones too.

        What is still reserved then stays counted as spent: end the calls first.
        """
        self._closed = True
        for timer in (self._flushing, self._reporting, self._sweeping):
            if timer is not None:
                timer.cancel()
        outcomes: list[tuple[Waiting, Outcome]] = []
        for account in self._all_accounts():
            outcomes += [(waiting, _CLOSING) for waiting in account.queue if not waiting.over]
            account.queue.clear()
            self._drop(account)
        self._deliver(outcomes)
        self._close_done = done
        if not self._in_flight:
            self._report(done)

    def late_change(self, account: Account, slot: int, change: int) -> None:
        """What a call used differs from what it took, and the slice it took from is gone or too small."""
        if change > 0 and slot == account.last:
            covered = min(change, account.free)
            account.free -= covered
            change -= covered
        self._change(account, slot, change)
        account.returned(-change)

    def mark_reached(self, account: Account) -> None:
        """Tell the marks that the account's spending has reached, and arm the next."""
        for limit, mark in account.book.reach_marks(account, self._wall_ns()):
            if self._on_mark is not None:
                self._on_mark(limit, account.value, mark, account.spent)

    def _reserve_slowly(self, charges: Sequence[Charge], ask: Ask, done: Callable[[Outcome], None]) -> None:
        if self._closed:
            return done(_CLOSING)
        accounts = dict.fromkeys(self._account(limit, value) for limit, value in charges)
        waiting = Waiting(ask, list(accounts), done)
        for account in accounts:
            account.recent = waiting.amounts[account.unit]
        outcome = self._pursue(waiting)
        return None if outcome is None else done(outcome)

    def _account(self, limit: Limit, value: str) -> Account:
        book = self._books.get(limit) or self._open_book(limit)
        account = book.accounts.get(value)
        if account is None:
            account = book.accounts[value] = Account(book, value)
            if self._sweeping is None:
                self._sweeping = self._clock.call_later(SWEEP_NS, self._sweep)
        return account

    def _all_accounts(self) -> list[Account]:
        return [account for book in dict.fromkeys(self._books.values()) for account in book.accounts.values()]

    def _open_book(self, limit: Limit) -> Book:
        """Limits that share their accounts share a book; the tightest of them counts."""
        book = next((book for other, book in self._books.items() if other.account("") == limit.account("")), None)
        if book is None:
            book = Book(limit)
        else:
            self._shared = True
            book.add(limit)
            for account in book.accounts.values():
                self._drop(account)
                account.next_mark = book.least_mark
        self._books[limit] = book
        return book

    def _pursue(self, waiting: Waiting) -> Outcome | None:
        """Take what can be taken now; None: the rest waits for the ledger."""
        now = self._wall_ns()
        for account in [*waiting.lacking]:
            if account.queue:
                account.queue.append(waiting)
                continue
            if self._take(account, waiting, now):
                continue
            reached = self._refused(account, waiting, now)
            if reached is not None:
                return self._refuse(waiting, reached)
            account.queue.append(waiting)
            self._lease(account)
        return self._complete(waiting, now) if not waiting.lacking else None

    def _take(self, account: Account, waiting: Waiting, now: int, sure: bool = False) -> bool:
        if not account.holds(now):
            self._drop(account)
            return False
        amount = waiting.amounts[account.unit]
        if account.free < amount:
            nothing_left = account.left == 0 and (sure or account.is_sure(now, self._clock.monotonic_ns()))
            if not nothing_left or account.free < account.least(waiting.ask):
                return False
            amount = waiting.amounts[account.unit] = account.free
        account.free -= amount
        account.reserved += amount
        waiting.lacking.remove(account)
        waiting.parts.append((account, account.last, amount))
        waiting.latest_ns = max(waiting.latest_ns, now)
        if account.free < account.low or now >= account.renew_ns:
            self._lease(account)
        return True

    def _refused(self, account: Account, waiting: Waiting, now: int, sure: bool = False) -> LimitReached | None:
        asked = account.least(waiting.ask)
        if account.free + account.left >= asked or not (sure or account.is_sure(now, self._clock.monotonic_ns())):
            return None
        return account.reached(asked)

    def _refuse(self, waiting: Waiting, reached: LimitReached) -> LimitReached:
        """Give everything back and name the tightest limit that refuses: the one that will do so the longest."""
        now = self._wall_ns()
        others = (self._refused(account, waiting, now) for account in waiting.lacking)
        reached = max((reached, *filter(None, others)), key=lambda each: FOREVER_NS if each.resets_at_ns is None else each.resets_at_ns)
        self._abandon(waiting)
        return reached

    def _abandon(self, waiting: Waiting) -> None:
        waiting.over = True
        self._release(waiting)

    def _release(self, waiting: Waiting) -> None:
        for account, slot, amount in waiting.parts:
            self._give_back(account, slot, amount)
        waiting.parts.clear()

    def _give_back(self, account: Account, slot: int, amount: int) -> None:
        account.reserved -= amount
        if slot == account.last:
            account.free += amount
        else:
            self.late_change(account, slot, -amount)

    def _complete(self, waiting: Waiting, now: int) -> Outcome | None:
        """Everything is taken: the call may run, unless what was taken first has run out while the rest was awaited."""
        if now < waiting.latest_ns or any(now >= account.window.starts_ns(slot + 1) for account, slot, _ in waiting.parts):
            waiting.lacking = [account for account, _, _ in waiting.parts]
            waiting.latest_ns = 0
            self._release(waiting)
            return self._pursue(waiting)
        waiting.over = True
        usd, calls, tokens = waiting.amounts
        for account, slot, amount in waiting.parts:
            if amount > waiting.amounts[account.unit]:
                self._give_back(account, slot, amount - waiting.amounts[account.unit])
        return Reservation(self, [(account, slot) for account, slot, _ in waiting.parts], (usd, calls, tokens))

    def _lease(self, account: Account) -> None:
        """Ask the ledger at the end of this tick, together with everybody else who asks in it."""
        if not account.asking and not self._closed:
            account.asking = True
            self._asking.append(account)
            if self._flushing is None:
                self._flushing = self._clock.call_later(0, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        accounts, self._asking = self._asking, []
        now = self._wall_ns()
        requests = [self._request(account, now) for account in accounts]
        self._report(self._reported)  # before the leases: what goes back is there to be granted again
        self._in_flight += 1
        self._ledger.lease(requests, partial(self._answered, accounts, requests))

    def _request(self, account: Account, now: int) -> LeaseRequest:
        first, last = account.next_slots(now)
        waiting = [each for each in account.queue if not each.over]
        if waiting and last != account.last:
            self._drop(account)
        need = sum(each.amounts[account.unit] for each in waiting)
        least = min((account.least(each.ask) for each in waiting), default=0)
        account.unseen = 0
        return LeaseRequest(
            account=account.key,
            first=first,
            last=last,
            leaves_ns=account.window.leaves_ns(last),
            limit=account.book.limit.amount,
            need=max(0, need - account.free),
            least=max(0, least - account.free),
            ahead=account.slice_size,
        )

    def _answered(self, accounts: list[Account], requests: list[LeaseRequest], answer: Sequence[Lease] | StorageError) -> None:
        self._in_flight -= 1
        outcomes: list[tuple[Waiting, Outcome]] = []
        for account in accounts:
            account.asking = False
        if isinstance(answer, StorageError):
            unavailable = LedgerUnavailable(str(answer))
            for account in accounts:
                outcomes += [(waiting, unavailable) for waiting in account.queue if not waiting.over]
                account.queue.clear()
        else:
            now = self._wall_ns()
            for account, request, lease in zip(accounts, requests, answer, strict=True):
                self._install(account, request, lease, now)
            for account in accounts:
                outcomes += self._serve(account, now)
        self._deliver(outcomes)
        if self._closed and not self._in_flight:
            self._report(self._close_done)

    def _install(self, account: Account, request: LeaseRequest, lease: Lease, now: int) -> None:
        if self._closed or request.limit != account.book.limit.amount:
            self._change(account, request.last, -lease.amount)
            return
        if account.last not in (-1, request.last):
            self._drop(account)
        account.install(request.first, request.last, lease.amount, lease.rows, request.limit)
        if not account.unseen and (account.left == 0 or lease.amount < request.need):
            asked_again_ns = self._clock.monotonic_ns() + OTHERS_NS if lease.rows.others else FOREVER_NS
            account.be_sure(account.window.starts_ns(request.first + 1), asked_again_ns)
        if not account.holds(now):
            self._drop(account)
            account.ahead = min(SLOTS, account.ahead * 2)
        if account.book.marks:
            self.mark_reached(account)

    def _serve(self, account: Account, now: int) -> list[tuple[Waiting, Outcome]]:
        """Decide the calls that waited for this answer, first come first served."""
        outcomes: list[tuple[Waiting, Outcome]] = []
        queue = account.queue
        sure = not account.unseen
        while queue:
            waiting = queue[0]
            if waiting.over or account not in waiting.lacking:
                queue.popleft()
                continue
            outcome: Outcome | None = None
            if self._take(account, waiting, now, sure):
                if not waiting.lacking:
                    outcome = self._complete(waiting, now)
            else:
                reached = self._refused(account, waiting, now, sure) if account.holds(now) else None
                if reached is None:
                    self._lease(account)
                    break
                outcome = self._refuse(waiting, reached)
            queue.popleft()
            if outcome is not None:
                outcomes.append((waiting, outcome))
        return outcomes

    def _deliver(self, outcomes: Iterable[tuple[Waiting, Outcome]]) -> None:
        """Once the books are in order, for a caller may reserve again from inside its `done`."""
        told: set[Waiting] = set()
        for waiting, outcome in outcomes:
            if waiting not in told:
                told.add(waiting)
                if not waiting.over:
                    self._abandon(waiting)
                waiting.done(outcome)

    def _drop(self, account: Account) -> None:
        slot, free = account.drop()
        self._change(account, slot, -free)

    def _change(self, account: Account, slot: int, change: int) -> None:
        if not change:
            return
        before, leaves_ns = self._changes.get((account.key, slot), (0, account.window.leaves_ns(slot)))
        self._changes[account.key, slot] = (before + change, leaves_ns)
        if self._reporting is None and not self._closed:
            self._reporting = self._clock.call_later(REPORT_NS, self._report_now)

    def _report_now(self) -> None:
        self._reporting = None
        self._report(self._reported)

    def _report(self, done: Callable[[StorageError | None], None]) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None
        changes, self._changes = self._changes, {}
        uses = [
            Use(account=key, slot=slot, leaves_ns=leaves_ns, change=change)
            for (key, slot), (change, leaves_ns) in changes.items()
            if change
        ]
        if uses or self._closed:
            self._ledger.report(uses, done)

    def _reported(self, error: StorageError | None) -> None:
        if error is not None:
            self.report_failures += 1

    def _sweep(self) -> None:
        """Return what cannot be used any more or lies idle, a few accounts at a time; forget accounts at rest."""
        now = self._wall_ns()
        for looked_at, account in enumerate(self._to_sweep, 1):
            self._tidy(account, now)
            if looked_at == SWEEP_ACCOUNTS:
                self._sweeping = self._clock.call_later(SWEEP_STEP_NS, self._sweep)
                return
        accounts = self._all_accounts()
        self._to_sweep = iter(accounts)
        self._sweeping = self._clock.call_later(SWEEP_NS, self._sweep) if accounts else None

    def _tidy(self, account: Account, now: int) -> None:
        if account.queue or account.asking:
            return
        if account.last != -1 and not account.holds(now):
            self._drop(account)
        elif account.free > 2 * account.slice_size:
            self._change(account, account.last, -account.shrink(account.slice_size))
        if account.reserved:
            return
        account.idle_sweeps = account.idle_sweeps + 1 if account.free == account.swept_free else 0
        account.swept_free = account.free
        at_rest = account.idle_sweeps >= IDLE_SWEEPS if account.window.total else account.last == -1
        if at_rest:
            self._drop(account)
            del account.book.accounts[account.value]
