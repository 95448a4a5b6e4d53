"""When a call may be made: the rates that it draws on, and what its provider says of its own limits. Asked before money is reserved."""

from collections.abc import Callable, Mapping

from msgspec import Struct

from holdfast.clock import Clock
from holdfast.events.usage import Usage
from holdfast.execution.rates import Rates
from holdfast.execution.turn import Costs, Excess, Turn
from holdfast.execution.upstream import Headers
from holdfast.gateway.options import AgentOptions
from holdfast.gateway.routing import Destination
from holdfast.policy.limit import Scope
from holdfast.policy.rate import Rate, RateScope
from holdfast.wire.call import Call
from holdfast.wire.quota import retry_after_ns

_LEFT_ALONE = frozenset({429, 529})
"""Statuses with which a provider asks to be left alone for a while; 529 is Anthropic's "overloaded"."""


class Wish(Struct, frozen=True, kw_only=True):
    """One attempt that asks when it may be made. values: what each scope counts it under. until_ns: monotonic instant at which the whole
    call ends. free: it uses no tokens, and is counted apart. last: no other target follows, which could serve it sooner."""

    call: Call
    agent: AgentOptions
    destination: Destination
    values: Mapping[Scope, str]
    until_ns: int
    free: bool
    last: bool


class Turns:
    """everywhere: the rates on everything together."""

    def __init__(self, rates: Rates, everywhere: tuple[Rate, ...], clock: Clock) -> None:
        self._rates = rates
        self._everywhere = everywhere
        self._clock = clock

    def is_free(self, agent: AgentOptions, destination: Destination) -> bool:
        """Whether no rate applies, and the provider never spoke of its own."""
        provider = destination.provider
        if self._everywhere or agent.rates or provider.rates:
            return False
        return self._rates.is_unheard(self._rates.pool(destination.label, provider.key))

    def ask(self, wish: Wish, done: Callable[[Turn | Excess], None]) -> Turn | None:
        """`done` hears the turn when the attempt may go on, or why it must not. Returns the turn if it waits."""
        provider = wish.destination.provider
        wanted = self._everywhere + wish.agent.rates + provider.rates
        pool = None if wish.free else self._rates.pool(wish.destination.label, provider.key)
        costs = (1, 0, 0, 0) if wish.free else self._costs(wish.call, wish.destination.model)
        values: dict[RateScope, str] = {"provider": provider.name}
        values.update((scope, value) for scope, value in wish.values.items())
        sooner_ns = wish.until_ns
        if not wish.last:  # as with retries: no long wait where another target can serve the call
            sooner_ns = min(sooner_ns, self._clock.monotonic_ns() + wish.agent.retries.base_ns)
        turn = Turn(self._rates.draws(wanted, values, costs), pool, costs, wish.until_ns, sooner_ns)
        self._rates.ask(turn, done)
        return None if turn.passed or turn.over else turn

    def heard(self, destination: Destination, turn: Turn | None, status: int, headers: Headers) -> None:
        """The head of an answer: what it says of the provider's own limits holds for all."""
        wall_ns = self._clock.wall_ns()
        quotas = destination.provider.kind.quotas(headers, wall_ns)
        closed_ns = retry_after_ns(headers, wall_ns) if status in _LEFT_ALONE else None
        if quotas or closed_ns:
            pool = self._rates.pool(destination.label, destination.provider.key)
            self._rates.heard(pool, None if turn is None else turn.mark, quotas, closed_ns)

    def used(self, call: Call, destination: Destination, turn: Turn, usage: Usage | None, *, free: bool) -> None:
        """The attempt has ended. usage: None where it is not known: then what was expected stays counted. free: it used no tokens."""
        if usage is not None:
            self._rates.expectations.learn(destination.model, call.input_bound, usage.input, usage.output)
            turn.settle((usage.input, usage.output))
        else:
            turn.settle((0, 0) if free else None)

    def _costs(self, call: Call, model: str) -> Costs:
        read, generated = self._rates.expectations.expect(model, call.input_bound, call.max_output if call.generates else 0)
        return 1, read + generated, read, generated
