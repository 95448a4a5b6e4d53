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
from holdfast.execution.ledger import Lease, LeaseRequest, Ledger, Slate, Use
from holdfast.execution.reservation import Account, Ask, Book, LedgerUnavailable, Outcome, Reservation, Waiting
from holdfast.execution.watch import Notice, Watch
from holdfast.policy.allowance import FOREVER_NS, NO_SLICE, SLOTS, Slice
from holdfast.policy.limit import Limit, LimitReached

__all__ = ["Ask", "Charge", "LedgerUnavailable", "Limiter", "Outcome", "Reservation"]

SWEEP_NS = SECOND
SWEEP_STEP_NS = 10 * MILLISECOND
SWEEP_ACCOUNTS = 500
"""Accounts looked at in one step: about 100 us of work, so that 100,000 accounts never hold up a call."""
IDLE_SWEEPS = 15
"""A slice that rested for so many sweeps (about 15 s) is returned, so that other processes can have it, and its account forgotten."""
FORGOTTEN = 20_000
"""Accounts of which it is remembered that they once were there; of any other it must be asked what this process has used of it."""
PROBE_NS = SECOND
MOST_ACCOUNTS = 100_000
"""Held in memory at once, about 2 KB each: who asks for more (so many users within seconds) is told to come back later."""
REPORT_NS = 50 * MILLISECOND
OTHERS_NS = 100 * MILLISECOND
"""How long a refusal is repeated without asking while other holders might give something back."""

Charge = tuple[Limit, str]
_TOO_MANY = LedgerUnavailable(
    "too many users, interactions or other limited things within a minute; send the call again after it.", own=True
)
_CLOSING = LedgerUnavailable("Holdfast is shutting down; send the call again once it is back.", own=True)


class Limiter:
    """Reserves for calls; one per process and ledger holder. All callbacks come on the caller's thread.

    slate: where it is kept what was used, should this process be killed. notice: hears of marks and forecasts, once per mark and window.
    trouble: why limits cannot be checked now, in a sentence, "" when they can. overruns: settlements above their reservation.
    report_failures: reports that the ledger could not write.
    """

    def __init__(self, ledger: Ledger, clock: Clock, slate: Slate, notice: Callable[[Notice], None] = lambda notice: None) -> None:
        self.trouble = ""
        self.overruns = 0
        self.report_failures = 0
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._slate: Final = slate
        self._wall_ns = clock.wall_ns
        self._watch: Final = Watch(ledger, clock, notice)
        self._books: dict[Limit, Book] = {}
        self._counting: dict[str, Book] = {}
        self._shared = False
        self._asking: list[Account] = []
        self._changes: dict[tuple[str, int], tuple[int, int]] = {}
        self._reports_begun = self._reports_ended = 0
        self._forgotten: dict[str, int] = {}
        self._all_remembered = True
        self._probing: Timer | None = None
        self._flushing: Timer | None = None
        self._reporting: Timer | None = None
        self._sweeping: Timer | None = None
        self._to_sweep: Iterator[Account] = iter(())
        self._in_flight = 0
        self._held = 0
        self._closed = False
        self._close_done: Callable[[StorageError | None], None] = self._reported

    @property
    def accounts(self) -> int:
        """How many accounts are held in memory."""
        return self._held

    def reserve(self, charges: Sequence[Charge], ask: Ask, done: Callable[[Outcome], None]) -> None:
        """Take `ask` from every limit in `charges`, each with the value that is counted (an agent's name, a user's id), or from none.

        `done` is called before this returns when the slices in hand suffice, or certainly nothing is left; else after one trip to the
        ledger, in the order of asking for each account.
        """
        now = self._wall_ns()
        amounts = (ask.usd_most, ask.calls, ask.tokens_most)
        parts: list[tuple[Account, Slice]] = []
        books = self._books
        try:
            for limit, value in charges:
                account = books[limit].accounts[value]
                part = account.slice
                if part.free < amounts[account.unit] or not part.from_ns <= now < part.renew_ns or account.queue:
                    return self._reserve_slowly(charges, ask, done)
                parts.append((account, part))
        except KeyError:
            return self._reserve_slowly(charges, ask, done)
        if self._shared or self._closed:
            return self._reserve_slowly(charges, ask, done)
        for account, part in parts:
            amount = amounts[account.unit]
            part.reserved += amount
            part.cells[part.at] += amount
            part.free = free = part.free - amount
            if free < account.low:
                self._lease(account)
        return done(Reservation(self, parts, amounts))

    def close(self, done: Callable[[StorageError | None], None]) -> None:
        """Return every slice and report durably, then call `done`; waiting calls hear LedgerUnavailable, later ones too.

        What is still reserved then stays counted as spent: end the calls first.
        """
        self._closed = True
        for timer in (self._flushing, self._reporting, self._sweeping, self._probing):
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

    def late_change(self, account: Account, part: Slice, taken: int, change: int) -> None:
        """What a call used differs from what it took, and the slice it took from is gone or too small."""
        if part is not account.slice:
            account.older_reserved -= taken
        elif change > 0:
            covered = min(change, part.free)
            part.free -= covered
            change -= covered
        self._change(account, part, change)
        account.returned(-change)

    def mark_reached(self, account: Account) -> None:
        """Tell the marks that the account's spending has reached."""
        self._watch.look(account)

    def _reserve_slowly(self, charges: Sequence[Charge], ask: Ask, done: Callable[[Outcome], None]) -> None:
        if self._closed:
            return done(_CLOSING)
        if self._held >= MOST_ACCOUNTS:
            return done(_TOO_MANY)
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
            self._held += 1
            account = book.accounts[value] = Account(book, value)
            account.leased = self._forgotten.pop(account.key, -1 if self._all_remembered else account.window.slot(self._wall_ns()) + SLOTS)
            if self._sweeping is None:
                self._sweeping = self._clock.call_later(SWEEP_NS, self._sweep)
        return account

    def _all_accounts(self) -> Iterator[Account]:
        """Book by book, so that no turn has to list them all."""
        for book in [*self._counting.values()]:
            yield from [*book.accounts.values()]

    def _open_book(self, limit: Limit) -> Book:
        """Limits that share their accounts share a book; the tightest of them counts."""
        book = self._counting.get(limit.account(""))
        if book is None:
            book = self._counting[limit.account("")] = Book(limit)
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
        part = account.slice
        if not part.holds(now):
            self._drop(account)
            return False
        amount = waiting.amounts[account.unit]
        if part.free < amount:
            nothing_left = account.left == 0 and (sure or account.is_sure(now, self._clock.monotonic_ns()))
            if not nothing_left or part.free < account.least(waiting.ask):
                return False
            amount = waiting.amounts[account.unit] = part.free
        part.take(amount)
        waiting.lacking.remove(account)
        waiting.parts.append((account, part, amount))
        waiting.latest_ns = max(waiting.latest_ns, now)
        if part.free < account.low or now >= part.renew_ns:
            self._lease(account)
        return True

    def _refused(self, account: Account, waiting: Waiting, now: int, sure: bool = False) -> LimitReached | None:
        asked = account.least(waiting.ask)
        if account.slice.free + account.left >= asked or not (sure or account.is_sure(now, self._clock.monotonic_ns())):
            return None
        return account.reached(asked)

    def _refuse(self, waiting: Waiting, reached: LimitReached) -> LimitReached:
        """Give everything back and name the tightest limit that refuses: the one that will do so the longest."""
        now = self._wall_ns()
        others = (self._refused(account, waiting, now) for account in waiting.lacking)
        reached = max((reached, *filter(None, others)), key=lambda each: FOREVER_NS if each.resets_at_ns is None else each.resets_at_ns)
        self._watch.full(self._account(reached.limit, reached.value), reached)
        self._abandon(waiting)
        return reached

    def _abandon(self, waiting: Waiting) -> None:
        waiting.over = True
        self._release(waiting)

    def _release(self, waiting: Waiting) -> None:
        for account, part, amount in waiting.parts:
            self._give_back(account, part, amount)
        waiting.parts.clear()

    def _give_back(self, account: Account, part: Slice, amount: int) -> None:
        part.give_back(amount)
        if part is account.slice:
            part.free += amount
        else:
            self.late_change(account, part, amount, -amount)

    def _complete(self, waiting: Waiting, now: int) -> Outcome | None:
        """Everything is taken: the call may run, unless what was taken first has run out while the rest was awaited."""
        if now < waiting.latest_ns or any(now >= account.window.starts_ns(part.slot + 1) for account, part, _ in waiting.parts):
            waiting.lacking = [account for account, _, _ in waiting.parts]
            waiting.latest_ns = 0
            self._release(waiting)
            return self._pursue(waiting)
        waiting.over = True
        usd, calls, tokens = waiting.amounts
        for account, part, amount in waiting.parts:
            if amount > waiting.amounts[account.unit]:
                self._give_back(account, part, amount - waiting.amounts[account.unit])
        return Reservation(self, [(account, part) for account, part, _ in waiting.parts], (usd, calls, tokens))

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
        if waiting and last != account.slice.slot:
            self._drop(account)
        if last > account.leased:  # never held before: should a crash swallow the answer, it is known that nothing was used
            account.older[last] = self._open_slice(account, last, 0)
        need = sum(each.amounts[account.unit] for each in waiting)
        least = min((account.least(each.ask) for each in waiting), default=0)
        account.unseen = 0
        return LeaseRequest(
            account=account.key,
            first=first,
            last=last,
            leaves_ns=account.leaves_ns(last, now),
            limit=account.book.limit.amount,
            need=max(0, need - account.slice.free),
            least=max(0, least - account.slice.free),
            ahead=account.slice_size,
        )

    def _answered(self, accounts: list[Account], requests: list[LeaseRequest], answer: Sequence[Lease] | StorageError) -> None:
        self._in_flight -= 1
        outcomes: list[tuple[Waiting, Outcome]] = []
        for account in accounts:
            account.asking = False
        self._hear(answer if isinstance(answer, StorageError) else None)
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
            self._return(account, request.last, lease.amount)
            return
        part = account.slice
        if part.slot != request.last:
            self._drop(account)
            part = account.older.get(request.last) or self._open_slice(account, request.last, lease.rows.own)
        account.install(part, request.first, lease.amount, lease.rows, request.limit)
        if not account.unseen and (account.left == 0 or lease.amount < request.need):
            asked_again_ns = self._clock.monotonic_ns() + OTHERS_NS if lease.rows.others else FOREVER_NS
            account.be_sure(account.window.starts_ns(request.first + 1), asked_again_ns)
        if not account.holds(now):
            self._drop(account)
            account.ahead = min(SLOTS, account.ahead * 2)
        self._watch.look_ahead(account)

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

    def _open_slice(self, account: Account, slot: int, used: int) -> Slice:
        account.leased = max(account.leased, slot)
        return Slice(slot, *self._slate.open(account.key, slot, used))

    def _drop(self, account: Account) -> None:
        part, free = account.drop()
        self._change(account, part, -free)

    def _change(self, account: Account, part: Slice, change: int) -> None:
        """Let the next report say by how much what the ledger holds of a slice is to change."""
        if change:
            part.report = self._reports_begun + 1
            self._note(account, part.slot, change)

    def _return(self, account: Account, slot: int, amount: int) -> None:
        """Give back a grant that came too late to be used."""
        part = account.older.get(slot)
        if part is not None:
            self._change(account, part, -amount)
        elif amount:
            self._note(account, slot, -amount)

    def _note(self, account: Account, slot: int, change: int) -> None:
        before, leaves_ns = self._changes.get((account.key, slot), (0, account.leaves_ns(slot, self._wall_ns())))
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
            self._reports_begun += 1
            self._ledger.report(uses, done)

    def _reported(self, error: StorageError | None) -> None:
        """After an error too the ledger knows all: what was given back stays counted as spent, what was added it repeats by itself."""
        self._reports_ended += 1
        self._hear(error)
        if error is not None:
            self.report_failures += 1

    def _hear(self, error: StorageError | None) -> None:
        """Keep in mind whether the ledger answers; while it does not, ask again by and by."""
        self.trouble = "" if error is None else str(error)
        if self.trouble and self._probing is None and not self._closed:
            self._probing = self._clock.call_later(PROBE_NS, self.probe)

    def probe(self) -> None:
        """Find out whether limits can be checked; `trouble` says it once the ledger has answered."""
        self._probing = None
        self._ledger.probe(self._hear)

    def _sweep(self) -> None:
        """Return what cannot be used any more or lies idle, a few accounts at a time; forget accounts at rest."""
        now = self._wall_ns()
        for looked_at, account in enumerate(self._to_sweep, 1):
            self._tidy(account, now)
            if looked_at == SWEEP_ACCOUNTS:
                self._sweeping = self._clock.call_later(SWEEP_STEP_NS, self._sweep)
                return
        self._to_sweep = self._all_accounts()
        self._sweeping = self._clock.call_later(SWEEP_NS, self._sweep) if self._held else None

    def _tidy(self, account: Account, now: int) -> None:
        if account.queue or account.asking:
            return
        part = account.slice
        if part is not NO_SLICE and not part.holds(now):
            self._drop(account)
        elif part.free > 2 * account.slice_size:
            self._change(account, part, -account.shrink(account.slice_size))
        if account.older:
            self._close_settled(account)
        rests = part.free == account.swept_free
        account.idle_sweeps = account.idle_sweeps + 1 if rests else 0
        account.swept_free = part.free
        if account.idle_sweeps >= IDLE_SWEEPS:
            self._drop(account)
        if account.slice is NO_SLICE and not account.older:
            self._forget(account)

    def _close_settled(self, account: Account) -> None:
        """Let go of slices of which the ledger knows all: nothing is reserved in them, and every change of theirs was reported."""
        for slot, part in [*account.older.items()]:
            if not part.reserved and part.report <= self._reports_ended:
                self._slate.close(account.key, slot, part.cells, part.at)
                del account.older[slot]

    def _forget(self, account: Account) -> None:
        self._held -= 1
        del account.book.accounts[account.value]
        if len(self._forgotten) >= FORGOTTEN:
            self._forgotten.clear()
            self._all_remembered = False
        self._forgotten[account.key] = account.leased
