"""Circuit breakers as values: what opens one, for how long, who may probe it, what closes it. The models are failsafe-go, Polly and
resilience4j, and so are the words: closed, open, half-open, isolated.

Closed lets everything through and counts. Open lets nothing through until its cooldown is over. Half-open lets a few calls through as
probes: as many successes close it, one failure opens it again, for longer. Isolated is a person's order; only a person takes it back.
"""

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from holdfast.clock import SECOND

BreakerKind = Literal["provider", "model", "key", "tool"]
BreakerState = Literal["closed", "open", "half_open", "isolated"]
CircuitState = Literal["closed", "open", "half_open"]
Outcome = Literal["success", "failure", "suspicion"]
"""suspicion: a failure that may be somebody else's, such as a model's where the breaker is its provider's; one success refutes it."""

SLOTS = 10
"""Pieces of a window: what is counted lies within the last window, and at least within nine tenths of it."""
MOST_PROBES = 8
LONGEST_ASKED_NS = 3600 * SECOND
"""How long a breaker stays open because its upstream asks for it: one that asks for a month is broken in another way."""
KEY_REJECTIONS = 3
"""Calls after which a key is given up, when not one was accepted: a rejection costs nothing, but a provider may err once."""


class BreakerOptions(Struct, frozen=True, kw_only=True):
    """failure_rate, slow_rate: percent of calls, 1 to 100, from which it opens. slow_call_ns: from when a call is slow: the first token of
    a stream, the whole answer otherwise; None: none is. How long a model thinks only its user knows. window_ns: over which calls are
    counted. minimum_calls: fewer within it open nothing, >= 1. cooldown_ns: how long it is open at first; doubled with every probe that
    fails, up to longest_cooldown_ns. probes: at once while half-open, and successes that close it, 1 to MOST_PROBES.
    """

    failure_rate: int = 50
    slow_call_ns: int | None = None
    slow_rate: int = 80
    window_ns: int = 30 * SECOND
    minimum_calls: int = 10
    cooldown_ns: int = 5 * SECOND
    longest_cooldown_ns: int = 30 * SECOND
    probes: int = 2

    def of_kind(self, kind: BreakerKind) -> "BreakerOptions":
        """The same for what is counted: keys are given up after fewer calls."""
        return replace(self, minimum_calls=min(self.minimum_calls, KEY_REJECTIONS)) if kind == "key" else self


SUSPECTS = 2
"""How many must be suspect before the suspicion holds: one model that fails says nothing about the others of its provider, and one model
that a key may not use nothing about the key."""

SURE = 0b11
"""The sources of a suspicion that needs no second one."""


class Counts(Struct, frozen=True):
    """Calls within a window. sources: a set of up to 64 whose failures are suspicions, as bits."""

    calls: int = 0
    failures: int = 0
    suspicions: int = 0
    slow: int = 0
    sources: int = 0

    @property
    def failure_rate(self) -> float | None:
        """Percent, suspicions too; None of no calls."""
        return round(100 * (self.failures + self.suspicions) / self.calls, 1) if self.calls else None

    @property
    def slow_rate(self) -> float | None:
        """Percent; None of no calls."""
        return round(100 * self.slow / self.calls, 1) if self.calls else None


def slot_ns(options: BreakerOptions) -> int:
    return max(1, options.window_ns // SLOTS)


def why_open(options: BreakerOptions, kind: BreakerKind, counts: Counts) -> str:
    """What of the counts opens a closed breaker, for people; "" when nothing does."""
    calls, within = counts.calls, f"within {options.window_ns / SECOND:g} s"
    if calls < options.minimum_calls:
        return ""
    if counts.failures * 100 >= options.failure_rate * calls:
        return f"{counts.failures} of {calls} calls failed {within}"
    if options.slow_call_ns is not None and counts.slow * 100 >= options.slow_rate * calls:
        return f"{counts.slow} of {calls} calls took longer than {options.slow_call_ns / SECOND:g} s {within}"
    suspected = counts.suspicions and counts.failures + counts.suspicions == calls
    if suspected and counts.sources.bit_count() >= SUSPECTS:
        return f"all {calls} calls {'were rejected' if kind == 'key' else 'failed'} {within}"
    return ""


def cooldown_ns(options: BreakerOptions, reopened: int, jitter: float) -> int:
    """How long it stays open. reopened: probes that failed in a row before. jitter: uniform in [0, 1), for up to a tenth more: machines
    that opened together should not probe together."""
    length = min(options.longest_cooldown_ns, options.cooldown_ns << min(reopened, 30))
    return max(length, options.cooldown_ns) + int(length * jitter / 10)


class Place(Struct, frozen=True):
    """A probe on its way. until_ns: when its place is free again should nothing be heard of it."""

    ticket: int
    until_ns: int


class Circuit(Struct, frozen=True, kw_only=True):
    """One breaker. epoch: counts its changes: what was let through before one says nothing after it. until_ns: when an open one may be
    probed. reopened: probes that failed in a row. passed: successes since it is half-open. tickets: given out so far. asked_until_ns: how
    long the upstream asked to be left alone. Instants are monotonic."""

    state: CircuitState = "closed"
    epoch: int = 0
    until_ns: int = 0
    reopened: int = 0
    passed: int = 0
    places: tuple[Place, ...] = ()
    tickets: int = 0
    asked_until_ns: int = 0


CLOSED = Circuit()


class Ticket(Struct, frozen=True):
    """What a call was let through with. number: 0 for one that is no probe."""

    epoch: int
    number: int = 0


def admit(circuit: Circuit, options: BreakerOptions, now_ns: int, lease_ns: int) -> tuple[Circuit, Ticket | None]:
    """Let a call through, or not: None. A probe holds its place until it ends, or until nothing is heard of it for lease_ns."""
    if circuit.state == "closed":
        return circuit, Ticket(circuit.epoch)
    if circuit.state == "open":
        if now_ns < circuit.until_ns:
            return circuit, None
        circuit = replace(circuit, state="half_open", epoch=circuit.epoch + 1, passed=0, places=())
    places = tuple(place for place in circuit.places if place.until_ns > now_ns)
    if len(places) >= options.probes:
        return circuit, None
    number = circuit.tickets + 1
    return replace(circuit, places=(*places, Place(number, now_ns + lease_ns)), tickets=number), Ticket(circuit.epoch, number)


def wait_ns(circuit: Circuit, options: BreakerOptions, now_ns: int) -> int:
    """How long until a call may be let through, 0: now. While probes are on their way that is a guess: a second, or less."""
    if circuit.state == "closed":
        return 0
    if circuit.state == "open":
        return max(0, circuit.until_ns - now_ns)
    running = sorted(place.until_ns - now_ns for place in circuit.places if place.until_ns > now_ns)
    return 0 if len(running) < options.probes else min(running[0], SECOND)


def renew(circuit: Circuit, ticket: Ticket, until_ns: int) -> Circuit | None:
    """The probe is still on its way; None when its place was given to another."""
    if not _holds(circuit, ticket):
        return None
    places = tuple(Place(place.ticket, until_ns) if place.ticket == ticket.number else place for place in circuit.places)
    return replace(circuit, places=places)


def give_back(circuit: Circuit, ticket: Ticket) -> Circuit:
    """The probe ended without saying anything, as when its client left: its place is free."""
    return replace(circuit, places=tuple(place for place in circuit.places if place.ticket != ticket.number))


def probed(circuit: Circuit, options: BreakerOptions, ticket: Ticket, outcome: Outcome | None, slow: bool) -> tuple[Circuit, str]:
    """A probe has ended. outcome: None where it says nothing. Why the breaker is to be opened again, for people; "" when it is not."""
    if not _holds(circuit, ticket):
        return circuit, ""
    circuit = give_back(circuit, ticket)
    if outcome == "failure" or (outcome == "suspicion" and not circuit.passed):
        return circuit, "a probe failed"
    if slow and outcome is not None:
        return circuit, "a probe was slow"
    if outcome == "success":
        circuit = replace(circuit, passed=circuit.passed + 1)
        if circuit.passed >= options.probes:
            circuit = closed(circuit)
    return circuit, ""


def opened(circuit: Circuit, options: BreakerOptions, now_ns: int, jitter: float) -> Circuit:
    """Open a closed one, or a half-open one again: for its cooldown, and as long as its upstream asked for."""
    reopened = circuit.reopened + 1 if circuit.state == "half_open" else 0
    until_ns = max(now_ns + cooldown_ns(options, reopened, jitter), circuit.asked_until_ns)
    return replace(circuit, state="open", epoch=circuit.epoch + 1, until_ns=until_ns, reopened=reopened, passed=0, places=())


def closed(circuit: Circuit) -> Circuit:
    return Circuit(epoch=circuit.epoch + 1, tickets=circuit.tickets)


def asked(circuit: Circuit, now_ns: int, after_ns: int) -> Circuit:
    """The upstream asks to be left alone so long (`Retry-After`); an open breaker obeys, a closed one does when it opens."""
    asked_until_ns = max(circuit.asked_until_ns, now_ns + min(after_ns, LONGEST_ASKED_NS))
    until_ns = max(circuit.until_ns, asked_until_ns) if circuit.state == "open" else circuit.until_ns
    return replace(circuit, asked_until_ns=asked_until_ns, until_ns=until_ns)


def _holds(circuit: Circuit, ticket: Ticket) -> bool:
    return circuit.state == "half_open" and any(place.ticket == ticket.number for place in circuit.places)


class Isolation(Struct, frozen=True, kw_only=True):
    """A breaker that a person holds open. name: of the breaker. at: wall clock in nanoseconds."""

    name: str
    reason: str = ""
    author: str = ""
    at: int = 0

    @property
    def why(self) -> str:
        """For people: ` by ann@host: it refunds everybody`, "" where neither is known."""
        author = f" by {self.author}" if self.author else ""
        return f"{author}: {self.reason.rstrip('.')}" if self.reason else author


class Isolations:
    """Those that hold at one time."""

    __slots__ = ("_by_name", "active")

    def __init__(self, active: Iterable[Isolation] = ()) -> None:
        self.active = tuple(active)
        self._by_name = {isolation.name: isolation for isolation in self.active}

    def first(self, names: Iterable[str]) -> Isolation | None:
        return next((self._by_name[name] for name in names if name in self._by_name), None)

    def with_isolation(self, isolation: Isolation) -> "Isolations":
        """One more; it takes the place of an earlier one of the same name."""
        return Isolations((*self.without(isolation.name).active, isolation))

    def without(self, name: str) -> "Isolations":
        return Isolations(each for each in self.active if each.name != name)
