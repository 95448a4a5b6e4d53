"""What stands between a request and its attempt: the worst case is bounded, and reserved against every limit that applies.

One per gateway; the calls that wait here are known to the parts that make them wait.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from holdfast.execution.attempt import AttemptResult
from holdfast.execution.kill_switch import KillSwitch
from holdfast.execution.limiter import LedgerUnavailable, Limiter, Reservation
from holdfast.gateway import refusals
from holdfast.gateway.admission import Bounds, bounds, charges
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.options import AgentOptions, Reply
from holdfast.gateway.recording import Origin
from holdfast.gateway.routing import Destination
from holdfast.policy.kill import Kill, Kills
from holdfast.policy.limit import Limit, LimitReached, Scope
from holdfast.pricing import Rates
from holdfast.wire.call import Answer, Call, Refusal
from holdfast.wire.hosted import provider_runs

_FREE = Rates(input=0, output=0)


class Entry(Struct, frozen=True, kw_only=True):
    """A call that asks to be let through. price: nano-dollars of one whose body is not read, None: not known. total_at_ns: monotonic
    instant at which the whole call ends."""

    call: Call
    agent: AgentOptions
    origin: Origin
    endpoint: Endpoint
    price: int | None
    began_wall_ns: int
    total_at_ns: int


class Admitted(Struct, frozen=True):
    """The attempt may be made. unchecked: why no limit was checked for it, "" when all were."""

    bounds: Bounds
    reservation: Reservation
    unchecked: str = ""


class Denied(Struct, frozen=True):
    """It must not be made; nothing was spent. reached: the limit that says so. kill: what was killed. elsewhere: another target might
    still serve the call."""

    refusal: Refusal
    reached: LimitReached | None = None
    kill: Kill | None = None
    elsewhere: bool = True


class Gate:
    """limits: those on everything together. kills: tells what is killed now. allow_unchecked: let calls through when the limits cannot
    be checked."""

    def __init__(self, limiter: Limiter, limits: tuple[Limit, ...], kill_switch: KillSwitch, *, allow_unchecked: bool = False) -> None:
        self._limiter = limiter
        self.kills = kill_switch.kills
        self._limits = limits
        self._allow_unchecked = allow_unchecked

    def admit(self, entry: Entry, destination: Destination, done: Callable[[Admitted | Denied], None]) -> None:
        """Decide about one attempt of `entry` at `destination`; `done` is called before this returns where nothing must be awaited."""
        drawn = charges(self._limits + entry.agent.limits, _values(entry, destination))
        found = bounds(entry.call, destination.model, _rates(entry, destination), drawn, entry.agent.default_max_output)
        if isinstance(found, Refusal):
            done(Denied(found))
            return

        def reserved(outcome: Reservation | LimitReached | LedgerUnavailable) -> None:
            done(self._outcome(found, outcome))

        self._limiter.reserve(drawn, found.ask, reserved)

    def _outcome(self, found: Bounds, outcome: Reservation | LimitReached | LedgerUnavailable) -> Admitted | Denied:
        if isinstance(outcome, Reservation):
            return Admitted(found, outcome)
        if isinstance(outcome, LimitReached):
            return Denied(refusals.limit_reached(outcome), outcome, elsewhere=False)
        if self._allow_unchecked:
            return Admitted(found, Reservation(self._limiter, [], found.ask.most), outcome.reason)
        return Denied(refusals.ledger_unavailable(outcome.reason))


def killed_tool(killed: Mapping[str, Kill], result: AttemptResult, answer: Answer | None) -> Kill | None:
    """The kill of a tool that is called by what came of an answer, or by the whole one."""
    if not killed:
        return None
    called = set(result.stream.tools) if result.stream is not None else set()
    if answer is not None:
        called.update(answer.other_tools, (call.name for call in answer.tool_calls))
    return next((kill for name, kill in killed.items() if name in called), None)


def killed(kills: Kills, entry: Entry, destination: Destination | Reply) -> Denied | None:
    """Whether these kills stop `entry` at `destination`; asked before `admit`, and again directly before an attempt is sent."""
    if not kills.active:
        return None
    call, target = entry.call, ("", "") if isinstance(destination, Reply) else (destination.model, destination.label)
    kill = kills.stopping((entry.origin.agent, entry.agent.name, entry.agent.based_on), entry.origin.release, (call.model, *target))
    if kill is None and kills.tools and call.tools is not None:
        kill = next((tool for name, tool in kills.tools.items() if provider_runs(call.tools, name)), None)
    if kill is None:
        return None
    return Denied(refusals.killed(kill), kill=kill, elsewhere=kill.scope == "model" and kill.value != call.model)


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
    return destination.provider.prices.rates(destination.model, entry.began_wall_ns, entry.call.tier)
