"""What a call passes on its way to a target beside money and turns: the circuit breakers of its provider, model, key or tool."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Protocol

from msgspec import Struct

from holdfast.policy.circuit_breaker import BreakerKind, BreakerOptions, BreakerState, Counts, Isolations, Outcome, Ticket, slot_ns

PROBE_LEASE_NS = 5_000_000_000
"""A probe of which its process says nothing for so long gives its place back: the process was killed, or stands still."""


class Breaker:
    """One breaker as a process knows it. name: for people, and the one that commands take. high, low: its name by digest. place: where a
    table keeps it."""

    __slots__ = ("high", "kind", "low", "name", "options", "place", "slot_ns")

    def __init__(self, kind: BreakerKind, name: str, options: BreakerOptions) -> None:
        self.kind: BreakerKind = kind
        self.name = name
        self.options = options.of_kind(kind)
        self.slot_ns = slot_ns(options)
        self.high, self.low = breaker_digest(name)
        self.place = -1


class Guards:
    """The breakers that the calls of one target pass, all of them. source: whose suspicions they bring, as a bit. serial: of the table when
    they were last seen closed, -1: never. tickets: with which calls were let through then."""

    __slots__ = ("breakers", "serial", "source", "tickets")

    def __init__(self, breakers: Sequence[Breaker], source: int = 0) -> None:
        self.breakers = tuple(breakers)
        self.source = source
        self.serial = -1
        self.tickets: tuple[Ticket, ...] = ()


def breaker_digest(name: str) -> tuple[int, int]:
    """Two words of 64 bits, the first never zero: zero is an empty place."""
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little") | 1, int.from_bytes(digest[8:], "little")


class Report(Struct, frozen=True):
    """What the end of a call says to one of its breakers. outcome: None for nothing. sources: whose failure a suspicion is, as bits."""

    outcome: Outcome | None = None
    slow: bool = False
    sources: int = 0


SUCCESS = Report("success")
NOTHING = Report()


class Change(Struct, frozen=True, kw_only=True):
    """A breaker has changed its state. reason: for people. counts: within its window. until_ns: how long an open one stays so, monotonic;
    0 for others."""

    name: str
    kind: BreakerKind
    before: BreakerState
    after: BreakerState
    reason: str
    counts: Counts = Counts()
    until_ns: int = 0


class Standing(Struct, frozen=True, kw_only=True):
    """A breaker as a table holds it. counts: within its window up to now. at_opening: as counted when it was opened last. since: wall clock
    of its last change, 0: it never changed. probes: on their way."""

    name: str
    kind: BreakerKind
    state: BreakerState
    since: int
    until_ns: int
    reason: str
    counts: Counts
    at_opening: Counts
    probes: int


class Blocked(Struct, frozen=True):
    """What keeps a call away. wait_ns: until it may be let through."""

    standing: Standing
    wait_ns: int


class BreakerTable(Protocol):
    """Breakers that all processes of a data directory share. Instants are monotonic but for `wall_ns`. A table that has no room for one
    more lets its calls through uncounted."""

    def known_closed(self, guards: Guards) -> tuple[Ticket, ...] | None:
        """What a call is let through with where all were closed at the last look and nothing has changed since: nearly always."""

    def enter(self, guards: Guards, now_ns: int, wall_ns: int) -> tuple[Ticket, ...] | Blocked:
        """Let a call through all of them, or keep it away and take nothing. `changes` holds what that changed."""

    def report(self, guards: Guards, tickets: Sequence[Ticket], reports: Sequence[Report], at: "Instants", asked_ns: int | None) -> None:
        """It has ended. asked_ns: for how long its upstream asked to be left alone. `changes` holds what that changed."""

    def succeed(self, guards: Guards, tickets: Sequence[Ticket], now_ns: int, at: Callable[[], "Instants"]) -> None:
        """As `report`, of a call that was a success to all of them: nearly every call. at: asked where now_ns is not enough."""

    def renew(self, guards: Guards, tickets: Sequence[Ticket], now_ns: int) -> bool:
        """Its probes are still on their way; False when none holds a place any more."""

    def look(self, guards: Guards, now_ns: int) -> Blocked | None:
        """What would keep a call away now; takes nothing."""

    def changes(self) -> list[Change]:
        """What this process has changed since it last asked."""


class IsolationSwitch(Protocol):
    """What people hold open, over all processes of a data directory."""

    def isolations(self) -> Isolations:
        """Those that hold now. Reads nothing but memory, save at the first call after a change."""


class Instants(Struct, frozen=True):
    """Now, and a random number in [0, 1) for what is to be spread from here on."""

    now_ns: int
    wall_ns: int
    jitter: float
