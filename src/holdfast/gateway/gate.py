"""What stands between a request and its attempt: the worst case is bounded, and reserved against every limit that applies.

One per gateway; the calls that wait here are known to the parts that make them wait.
"""

from collections.abc import Callable

from msgspec import Struct

from holdfast.execution.limiter import LedgerUnavailable, Limiter, Reservation
from holdfast.gateway import refusals
from holdfast.gateway.admission import Bounds, bounds, charges
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.options import AgentOptions
from holdfast.gateway.recording import Origin
from holdfast.gateway.routing import Destination
from holdfast.policy.limit import Limit, LimitReached, Scope
from holdfast.pricing import Rates
from holdfast.wire.call import Call, Refusal

_FREE = Rates(input=0, output=0)


class Entry(Struct, frozen=True, kw_only=True):
    """A call that asks to be let through. price: nano-dollars of one whose body is not read, None: not known. history: tokens of the answer
    that it continues, 0: not known. total_at_ns: monotonic instant at which the whole call ends."""

    call: Call
    agent: AgentOptions
    origin: Origin
    endpoint: Endpoint
    price: int | None
    history: int = 0
    began_wall_ns: int
    total_at_ns: int


class Admitted(Struct, frozen=True):
    """The attempt may be made. unchecked: why no limit was checked for it, "" when all were."""

    bounds: Bounds
    reservation: Reservation
    unchecked: str = ""


class Denied(Struct, frozen=True):
    """It must not be made; nothing was spent. reached: the limit that says so. elsewhere: another target might still serve the call."""

    refusal: Refusal
    reached: LimitReached | None = None
    elsewhere: bool = True


class Gate:
    """limits: those on everything together. allow_unchecked: let calls through when the limits cannot be checked. waiting: calls that
    asked and were not told yet, also those whose client has left."""

    def __init__(self, limiter: Limiter, limits: tuple[Limit, ...], *, allow_unchecked: bool = False) -> None:
        self.waiting = 0
        self._limiter = limiter
        self._limits = limits
        self._allow_unchecked = allow_unchecked

    def admit(self, entry: Entry, destination: Destination, done: Callable[[Admitted | Denied], None]) -> None:
        """Decide about one attempt of `entry` at `destination`; `done` is called before this returns where nothing must be awaited."""
        drawn = charges(self._limits + entry.agent.limits, _values(entry, destination))
        rates, provider = _rates(entry, destination), destination.provider
        found = bounds(entry.call, destination.model, rates, drawn, entry.agent.default_max_output, provider, entry.history)
        if isinstance(found, Refusal):
            done(Denied(found))
            return

        def reserved(outcome: Reservation | LimitReached | LedgerUnavailable) -> None:
            self.waiting -= 1
            done(self._outcome(found, outcome))

        self.waiting += 1
        self._limiter.reserve(drawn, found.ask, reserved)

    def _outcome(self, found: Bounds, outcome: Reservation | LimitReached | LedgerUnavailable) -> Admitted | Denied:
        if isinstance(outcome, Reservation):
            return Admitted(found, outcome)
        if isinstance(outcome, LimitReached):
            return Denied(refusals.limit_reached(outcome), outcome, elsewhere=False)
        if self._allow_unchecked:
            return Admitted(found, Reservation(self._limiter, [], found.ask.most), outcome.reason)
        return Denied(refusals.ledger_unavailable(outcome.reason))


def _values(entry: Entry, destination: Destination) -> dict[Scope, str]:
    """What each scope counts this call under."""
    origin = entry.origin
    # The agent whose limits these are, whatever name the request goes by.
    values: dict[Scope, str] = {"all": "", "agent": entry.agent.name, "release": origin.release, "user": origin.user}
    if origin.run:
        values["run"] = origin.run
    if origin.interaction:
        values["interaction"] = origin.interaction
    if destination.model:
        values["model"] = destination.model
    return values


def _rates(entry: Entry, destination: Destination) -> Rates | None:
    if entry.endpoint.free:
        return _FREE
    if entry.endpoint.format is None:
        return None if entry.price is None else Rates(input=0, output=0, per_call=entry.price)
    return destination.provider.prices.rates(destination.model, entry.began_wall_ns, entry.call.tier, entry.call.geo)
