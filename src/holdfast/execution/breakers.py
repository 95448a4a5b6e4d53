"""The circuit breakers of a gateway: which ones a call passes, what its end says to them, what of that goes on record.

A call passes the breakers of its target together: those of its provider, its model there and its key, or that of its tool. All of them
must let it through. What they hold is common to all processes of a data directory.
"""

from collections.abc import Callable
from hashlib import blake2b

from msgspec import Struct

from holdfast.clock import Clock, Timer
from holdfast.events import BreakerChanged
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.circuit import (
    PROBE_LEASE_NS,
    Blocked,
    Breaker,
    BreakerTable,
    Change,
    Guards,
    Instants,
    IsolationSwitch,
    Report,
    breaker_digest,
)
from holdfast.execution.recording import Recorder
from holdfast.execution.verdict import NOTHING, SUCCEEDED, Verdict, took_ns, verdict
from holdfast.policy.circuit_breaker import SURE, BreakerKind, BreakerOptions, BreakerState, Ticket
from holdfast.wire.quota import retry_after_ns

MOST_TARGETS = 4096
"""Targets whose breakers are remembered by a process; model names are the agents', so there may be any number of them."""
_LONGEST_NAME = 256
_RENEWED = 4
"""How often within its lease a probe says that it is still on its way."""


class Guarded(Struct, frozen=True):
    """names: of its breakers, also where they are switched off, for they can be isolated all the same. guards: None where they are off.
    slow_call_ns: from when a call is slow, None: never."""

    names: tuple[str, ...]
    guards: Guards | None
    slow_call_ns: int | None = None


class KeptAway(Struct, frozen=True):
    """Why a call must not be made now. name: of the breaker. since: wall clock. retry_after_ns: when it may be let through, None: when a
    person says so."""

    name: str
    state: BreakerState
    since: int
    reason: str
    retry_after_ns: int | None


class Passage:
    """A call that was let through; it ends once, with a result or with `give_back`. until_ns: monotonic instant by which it has ended."""

    __slots__ = ("_breakers", "guarded", "over", "tickets", "until_ns")

    def __init__(self, breakers: "Breakers", guarded: Guarded, tickets: tuple[Ticket, ...], until_ns: int) -> None:
        self._breakers = breakers
        self.guarded = guarded
        self.tickets = tickets
        self.until_ns = until_ns
        self.over = False

    def give_back(self) -> None:
        """It ends without saying anything: nothing was sent, or its client left."""
        self._breakers.give_back(self)


class Breakers:
    """uniform: a random number in [0, 1)."""

    def __init__(
        self, table: BreakerTable, isolations: IsolationSwitch, clock: Clock, recorder: Recorder, uniform: Callable[[], float]
    ) -> None:
        self._table = table
        self._isolations = isolations.isolations
        self._clock = clock
        self._recorder = recorder
        self._uniform = uniform
        self._known: dict[str, Guarded] = {}
        self._probing: set[Passage] = set()
        self._timer: Timer | None = None

    def of(self, label: str, provider: str, key: str, options: BreakerOptions | None) -> Guarded:
        """The breakers of `provider/model`, of a provider alone, or of `tool/NAME`. key: "" for none. options: None where they are off."""
        found = self._known.get(label)
        if found is None:
            found = _guarded(label, provider, key, options)
            if len(self._known) >= MOST_TARGETS:
                self._known.clear()
            if len(label) <= _LONGEST_NAME:
                self._known[label] = found
        return found

    def look(self, guarded: Guarded) -> KeptAway | None:
        """What would keep a call away now; takes nothing."""
        active = self._isolations()
        if active.active and (isolation := active.first(guarded.names)) is not None:
            return KeptAway(isolation.name, "isolated", isolation.at, f"isolated{isolation.why}", None)
        if guarded.guards is None or self._table.known_closed(guarded.guards) is not None:
            return None
        blocked = self._table.look(guarded.guards, self._clock.monotonic_ns())
        return None if blocked is None else _kept_away(blocked)

    def enter(self, guarded: Guarded, until_ns: int) -> Passage | KeptAway:
        """Let one call through, or not. until_ns: monotonic instant by which it will have ended."""
        guards = guarded.guards
        if self._isolations().active or guards is None:
            return self.look(guarded) or self._enter(guarded, until_ns)
        tickets = self._table.known_closed(guards)
        return self._enter(guarded, until_ns) if tickets is None else Passage(self, guarded, tickets, until_ns)

    def ended(self, passage: Passage, result: AttemptResult, whole_ns: int) -> None:
        """Its attempt has. whole_ns: what the whole call was given."""
        guards = passage.guarded.guards
        if passage.over:
            return
        passage.over = True
        if guards is None:
            return
        found = verdict(result, whole_ns)
        slow_call_ns = passage.guarded.slow_call_ns
        slow = slow_call_ns is not None and took_ns(result) > slow_call_ns
        if found is SUCCEEDED and not slow:
            self._table.succeed(guards, passage.tickets, self._clock.monotonic_ns(), self._instants)
        else:
            at = self._instants()
            self._report(passage, guards, found, slow, at, retry_after_ns(result.headers, at.wall_ns))
        self._over(passage)

    def give_back(self, passage: Passage) -> None:
        """See `Passage.give_back`."""
        if passage.over:
            return
        passage.over = True
        guards = passage.guarded.guards
        if guards is not None and any(ticket.number for ticket in passage.tickets):
            self._report(passage, guards, NOTHING, False, self._instants(), None)
            self._over(passage)

    def _enter(self, guarded: Guarded, until_ns: int) -> Passage | KeptAway:
        if guarded.guards is None:
            return Passage(self, guarded, (), until_ns)
        entered = self._table.enter(guarded.guards, self._clock.monotonic_ns(), self._clock.wall_ns())
        if isinstance(entered, Blocked):
            return _kept_away(entered)
        passage = Passage(self, guarded, entered, until_ns)
        if any(ticket.number for ticket in entered):
            self._record()
            self._probing.add(passage)
            self._keep_alive()
        return passage

    def _instants(self) -> Instants:
        return Instants(self._clock.monotonic_ns(), self._clock.wall_ns(), self._uniform())

    def _report(self, passage: Passage, guards: Guards, found: Verdict, slow: bool, at: Instants, asked_ns: int | None) -> None:
        sources = SURE if found.sure else guards.source
        # How long a call takes is its model's or its tool's doing, not that of others.
        reports = [Report(found.of(each.kind), slow and each.kind in ("model", "tool"), sources) for each in guards.breakers]
        self._table.report(guards, passage.tickets, reports, at, asked_ns)

    def _over(self, passage: Passage) -> None:
        if self._probing:
            self._probing.discard(passage)
            if not self._probing and self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._record()

    def _record(self) -> None:
        for change in self._table.changes():
            self._recorder.append(recorded(change, self._clock.monotonic_ns(), self._clock.wall_ns()))

    def _keep_alive(self) -> None:
        if self._timer is None and self._probing:
            self._timer = self._clock.call_later(PROBE_LEASE_NS // _RENEWED, self._renew)

    def _renew(self) -> None:
        self._timer = None
        now_ns = self._clock.monotonic_ns()
        for passage in list(self._probing):
            guards = passage.guarded.guards
            assert guards is not None
            # What goes on beyond its end has been forgotten by a defect; its place must not be kept for it.
            if passage.until_ns + PROBE_LEASE_NS < now_ns or not self._table.renew(guards, passage.tickets, now_ns):
                self._probing.discard(passage)
        self._keep_alive()


def key_name(provider: str, key: str) -> str:
    """The name of a key's breaker, from which nobody learns the key: another key is another breaker."""
    return f"{provider}#{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=4, person=b'holdfast breaker').hexdigest()}"


def recorded(change: Change, now_ns: int, wall_ns: int, *, author: str = "", reason: str = "") -> BreakerChanged:
    """The event of a change. now_ns, wall_ns: the same instant on both clocks."""
    return BreakerChanged(
        timestamp=wall_ns,
        breaker=change.name,
        scope=change.kind,
        from_state=change.before,
        to_state=change.after,
        reason=reason or change.reason,
        calls=change.counts.calls,
        failure_rate=change.counts.failure_rate,
        slow_rate=change.counts.slow_rate,
        until=wall_ns + change.until_ns - now_ns if change.until_ns else None,
        author=author,
    )


def kind_of(name: str) -> BreakerKind:
    """What a breaker of this name stands before."""
    if name.startswith("tool/"):
        return "tool"
    return "model" if "/" in name else "key" if "#" in name else "provider"


def _guarded(label: str, provider: str, key: str, options: BreakerOptions | None) -> Guarded:
    names = (label,) if label.startswith("tool/") else tuple(dict.fromkeys((provider, label)))
    if key:
        names = (*names, key_name(provider, key))
    if options is None:
        return Guarded(names, None)
    guards = Guards([Breaker(kind_of(name), name, options) for name in names], 1 << breaker_digest(label)[1] % 64)
    return Guarded(names, guards, options.slow_call_ns)


def _kept_away(blocked: Blocked) -> KeptAway:
    standing = blocked.standing
    return KeptAway(standing.name, standing.state, standing.since, standing.reason, blocked.wait_ns)
