"""What stands between a request and its attempt: the circuit breakers of its target, the turn that it waits for, and the limits, against
every one of which its worst case is reserved.

One per gateway; the calls that wait here are known to the parts that make them wait.
"""

import logging
from collections.abc import Callable, Mapping

from msgspec import Struct

from holdfast.errors import ConnectFailed, Withdrawn
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.breakers import Breakers, Guarded, Passage
from holdfast.execution.kill_switch import KillSwitch
from holdfast.execution.limiter import LedgerUnavailable, Limiter, Reservation
from holdfast.execution.turn import Excess, Turn
from holdfast.execution.upstream import Headers
from holdfast.gateway import refusals
from holdfast.gateway.admission import Bounds, Charges, Cost, bounds, charges, tool_bounds
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.options import AgentOptions, Reply
from holdfast.gateway.recording import Origin
from holdfast.gateway.routing import Destination
from holdfast.gateway.turns import Turns, Wish
from holdfast.policy.kill import Kill, Kills
from holdfast.policy.limit import Limit, LimitReached, Scope
from holdfast.pricing import Rates
from holdfast.wire.call import Answer, Call, Refusal, StreamReader
from holdfast.wire.hosted import provider_runs

_log = logging.getLogger("holdfast.gateway")
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
    """The attempt may be made. passage: through its breakers. turn: what it took of the rates, None where none is in its way. unchecked:
    why no limit was checked for it, "" when all were."""

    bounds: Bounds
    reservation: Reservation
    passage: Passage
    turn: Turn | None = None
    unchecked: str = ""

    def cancel(self) -> None:
        """Give everything back: nothing was sent."""
        self.passage.give_back()
        self.reservation.cancel()
        if self.turn is not None:
            self.turn.cancel()


class Denied(Struct, frozen=True):
    """It must not be made; nothing was spent. reached: the limit that says so. kill: what was killed. elsewhere: another target might
    still serve the call."""

    refusal: Refusal
    reached: LimitReached | None = None
    kill: Kill | None = None
    elsewhere: bool = True


class Gate:
    """limits: those on everything together. kills: tells what is killed now. allow_unchecked: let calls through when the ledger cannot
    be asked. waiting: calls that wait for the ledger, also those whose client has left."""

    def __init__(
        self,
        limiter: Limiter,
        limits: tuple[Limit, ...],
        turns: Turns,
        kill_switch: KillSwitch,
        breakers: Breakers,
        *,
        allow_unchecked: bool = False,
    ) -> None:
        self.kills = kill_switch.kills
        self.waiting = 0
        self._limiter = limiter
        self._limits = limits
        self._turns = turns
        self._breakers = breakers
        self._allow_unchecked = allow_unchecked
        self._turning: dict[int, Turn] = {}

    def admit(self, entry: Entry, destination: Destination, done: Callable[[Admitted | Denied], None], *, last: bool = True) -> None:
        """Decide about one attempt of `entry` at `destination`; `done` is called before this returns where nothing must be awaited.

        last: no other target follows. A call that waits for its turn holds no money.
        """
        guarded = self._guarded(entry, destination)
        kept = self._breakers.look(guarded)
        if kept is not None:
            done(Denied(refusals.circuit_open(kept)))
            return
        values = _values(entry, destination)
        drawn = charges(self._limits + entry.agent.limits, values)
        found = _bounds(entry, destination, drawn)
        if isinstance(found, Refusal):
            done(Denied(found))
        elif self._turns.is_free(entry.agent, destination):
            self._reserve(_Then(drawn, found, done, guarded, entry.total_at_ns), None)
        else:
            self._take_turn(entry, destination, values, _Then(drawn, found, done, guarded, entry.total_at_ns), last)

    def leave(self, entry: Entry) -> None:
        """A call that may be waiting for its turn does not want it any more."""
        turn = self._turning.pop(id(entry), None)
        if turn is not None:
            turn.cancel()

    def heard(self, entry: Entry, destination: Destination, turn: Turn | None, status: int, headers: Headers) -> None:
        """The head of an answer has come."""
        if not (entry.endpoint.free or destination.tool):
            self._turns.heard(destination, turn, status, headers)

    def ended(self, entry: Entry, destination: Destination, admitted: Admitted, result: AttemptResult, cost: Cost) -> None:
        """An attempt has: its breakers hear how, and what it took of the rates is corrected by what it used."""
        turn = admitted.turn
        self._breakers.ended(admitted.passage, result, entry.agent.timeouts.total_ns)
        if result.status and not result.committed:
            self.heard(entry, destination, turn, result.status, result.headers)
        if turn is None:
            return
        if isinstance(result.error, ConnectFailed | Withdrawn):
            turn.cancel()
        else:
            self._turns.used(entry.call, destination, turn, cost.usage, free=cost.source == "free")

    def _reserve(self, then: "_Then", turn: Turn | None) -> None:
        def reserved(outcome: Reservation | LimitReached | LedgerUnavailable) -> None:
            self.waiting -= 1
            then.done(self._outcome(then, outcome, turn))

        self.waiting += 1
        try:
            self._limiter.reserve(then.drawn, then.found.ask, reserved)
        except Exception:
            self.waiting -= 1
            raise

    def _take_turn(self, entry: Entry, destination: Destination, values: dict[Scope, str], then: "_Then", last: bool) -> None:
        done = then.done

        def turned(turn: Turn | Excess) -> None:
            self._turning.pop(id(entry), None)
            if isinstance(turn, Excess):
                limit = turn.line.limit
                done(Denied(refusals.rate_exceeded(turn), elsewhere=limit is None or limit.of_target))
            else:
                try:
                    self._reserve(then, turn)
                except Exception:  # noqa: BLE001 - a timer's callback: nobody above would tell the agent, nor those whose turn it is too
                    _log.exception("a call broke when its turn came")
                    turn.cancel()
                    done(Denied(refusals.defect(), elsewhere=False))

        wish = Wish(
            call=entry.call,
            agent=entry.agent,
            destination=destination,
            values=values,
            until_ns=entry.total_at_ns,
            free=entry.endpoint.free or bool(destination.tool),
            last=last,
        )
        waiting = self._turns.ask(wish, turned)
        if waiting is not None:
            self._turning[id(entry)] = waiting

    def _outcome(self, then: "_Then", outcome: Reservation | LimitReached | LedgerUnavailable, turn: Turn | None) -> Admitted | Denied:
        unchecked = ""
        if self._allow_unchecked and isinstance(outcome, LedgerUnavailable) and not outcome.own:
            unchecked = outcome.reason
            outcome = Reservation(self._limiter, [], then.found.ask.most)
        denied: Denied
        if isinstance(outcome, Reservation):
            passage = self._breakers.enter(then.guarded, then.until_ns)  # last of all, for what is taken there nobody else can have
            if isinstance(passage, Passage):
                return Admitted(then.found, outcome, passage, turn, unchecked)
            outcome.cancel()
            denied = Denied(refusals.circuit_open(passage))
        elif isinstance(outcome, LimitReached):
            denied = Denied(refusals.limit_reached(outcome), outcome)  # what another target may cost can fit
        else:
            denied = Denied(refusals.ledger_unavailable(outcome.reason))
        if turn is not None:
            turn.cancel()
        return denied

    def _guarded(self, entry: Entry, destination: Destination) -> Guarded:
        """What is free (token counts, lists of models) says nothing about a model, and needs none."""
        provider = destination.provider
        label = provider.name if entry.endpoint.free else destination.label
        return self._breakers.of(label, provider.name, provider.key, provider.breaker)


class _Then(Struct, frozen=True):
    """How an admission goes on."""

    drawn: Charges
    found: Bounds
    done: Callable[[Admitted | Denied], None]
    guarded: Guarded
    until_ns: int


def killed_tool(killed: Mapping[str, Kill], result: AttemptResult, answer: Answer | None) -> Kill | None:
    """The kill of a tool that is called by what came of an answer, or by the whole one."""
    if not killed:
        return None
    if answer is not None:
        called = {*answer.other_tools, *(call.name for call in answer.tool_calls)}
        if (kill := next((kill for name, kill in killed.items() if name in called), None)) is not None:
            return kill
    return killed_in_stream(killed, result.stream)


def killed_in_stream(killed: Mapping[str, Kill], stream: StreamReader | None) -> Kill | None:
    """The kill of a tool that a stream has called so far."""
    called = stream.tools if stream is not None else ()
    return next((kill for name, kill in killed.items() if name in called), None)


def killed(kills: Kills, entry: Entry, destination: Destination | Reply) -> Denied | None:
    """Whether these kills stop `entry` at `destination`; asked before `admit`, and again directly before an attempt is sent."""
    if not kills.active:
        return None
    call, target = entry.call, ("", "") if isinstance(destination, Reply) else (destination.model, destination.label)
    kill = kills.stopping((entry.origin.agent, entry.agent.name, entry.agent.based_on), entry.origin.release, (call.model, *target))
    if isinstance(destination, Destination) and destination.tool:
        kill = _sharper(kill, kills.forbidden_tool((destination.tool,)))
    if kill is None and kills.tools and call.tools is not None:
        kill = next((tool for name, tool in kills.tools.items() if provider_runs(call.tools, name)), None)
    if kill is None:
        return None
    return Denied(refusals.killed(kill), kill=kill, elsewhere=kill.scope == "model" and kill.value != call.model)


def _sharper(kill: Kill | None, other: Kill | None) -> Kill | None:
    """Of two kills that stop the same call the one that cuts, else the first."""
    return other if kill is None or (other is not None and other.mode == "cut") else kill


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
    if destination.tool:
        values["tool"] = destination.tool
    return values


def _bounds(entry: Entry, destination: Destination, drawn: Charges) -> Bounds | Refusal:
    rates = _rates(entry, destination)
    if destination.tool:
        return tool_bounds(entry.call, destination.tool, rates, drawn)
    return bounds(entry.call, destination.model, rates, drawn, entry.agent.default_max_output, destination.provider, entry.history)


def _rates(entry: Entry, destination: Destination) -> Rates | None:
    if entry.endpoint.free:
        return _FREE
    if entry.endpoint.format is None:
        return None if entry.price is None else Rates(input=0, output=0, per_call=entry.price)
    return destination.provider.prices.rates(destination.model, entry.began_wall_ns, entry.call.tier, entry.call.geo)
