"""What a call may cost: which limits it draws on, the bounds to reserve, the output that the reservation can pay, the cost in the end."""

from collections.abc import Iterable

from msgspec import Struct

from holdfast.events.decision import CostSource
from holdfast.events.usage import Usage
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.limiter import Ask
from holdfast.money import Nano
from holdfast.policy.limit import Limit, Scope
from holdfast.pricing import Rates, affordable_output, cost, worst, worst_between
from holdfast.wire.call import Answer, Call, Refusal
from holdfast.wire.media import image_tokens
from holdfast.wire.reasoning import may_be_hidden

LEAST_OUTPUT = 16
"""Tokens per choice below which an answer is refused instead of cut short; also the least that the Responses API takes."""

_MOST_WATCHED = 10**15
"""Nano-dollars; no call costs a million."""

Charges = tuple[tuple[Limit, str], ...]
"""The limits that a call draws on, each with the value that is counted (an agent's name, a user's id, …)."""


class Bounds(Struct, frozen=True, kw_only=True):
    """What one attempt of `call` at `model` may use. rates: None when the model has no price. max_output: None when nothing bounds the
    output."""

    call: Call
    model: str
    rates: Rates | None
    input_bound: int
    max_output: int | None
    choices: int
    ask: Ask


class Cost(Struct, frozen=True):
    """amount: nano-dollars, None: not known. charged: what counts against the limits."""

    amount: Nano | None
    charged: Nano
    source: CostSource
    usage: Usage | None


def charges(limits: Iterable[Limit], values: dict[Scope, str]) -> Charges:
    """The limits that apply: a limit on something that the call does not have (no run, no tool) does not."""
    return tuple([(limit, values[limit.scope]) for limit in limits if limit.scope in values])


def bounds(call: Call, model: str, rates: Rates | None, drawn: Charges, default_max_output: int) -> Bounds | Refusal:
    """The upper and lower bound to reserve for one attempt at `model`, or why it must not be made under a spend limit."""
    most_output = call.max_output if call.generates else 0
    spend_limit = _spend_limit(drawn)
    if spend_limit is not None:
        if rates is None:
            return _unbounded(
                "model_without_price",
                call,
                spend_limit,
                f"the model {call.model!r} has no price" if call.model else "this path has no price",
            )
        if call.unbounded:
            return _unbounded("call_without_bound", call, spend_limit, call.unbounded)
        if most_output is None:
            most_output = default_max_output * call.choices
    input_bound = call.input_bound if model == call.model else call.input_bound + _dearer_pictures(call, model)
    if rates is None or most_output is None:
        ask = Ask(calls=1, usd_least=0, usd_most=0)
    else:
        least_output = min(LEAST_OUTPUT * call.choices, most_output)
        least, most = worst_between(rates, input_bound, least_output, most_output)
        if spend_limit is None:  # a mark to watch must neither refuse nor lower what an agent asks for, be it all the money there is
            least, most = 0, min(most, _MOST_WATCHED)
        ask = Ask(calls=1, usd_least=least, usd_most=most)
    return Bounds(call=call, model=model, rates=rates, input_bound=input_bound, max_output=most_output, choices=call.choices, ask=ask)


def output_to_send(bounds: Bounds, call: Call, granted: Nano) -> int | None:
    """The bound of output tokens per choice to put into the request, or None to leave it as the agent sent it."""
    if bounds.rates is None or bounds.max_output is None or not call.generates:
        return None
    if granted < bounds.ask.usd_most:
        return min(affordable_output(bounds.rates, bounds.input_bound, granted), bounds.max_output) // bounds.choices
    return bounds.max_output // bounds.choices if call.max_output is None else None


def settlement(result: AttemptResult, answer: Answer | None, bounds: Bounds, reserved: Nano) -> Cost:
    """What an attempt cost; `answer` as far as it came.

    An error answer is free. Where the provider may have worked without saying how much, the bound counts: of what was generated for a
    stream that was cut after its first token, where nothing of it can have been hidden, of everything otherwise.
    """
    usage = None if answer is None or not answer.complete else answer.usage
    if usage is not None:
        amount = None if bounds.rates is None else cost(bounds.rates, usage)
        return Cost(amount, amount or 0, "unpriced" if amount is None else "provider", usage)
    if result.status >= 400 and result.error is None:
        return Cost(0, 0, "free", None)
    if bounds.rates is None:
        return Cost(None, 0, "unpriced", None)
    most = None if bounds.max_output is None else reserved
    if result.stream is not None and result.committed and not may_be_hidden(bounds.call, bounds.model):
        generated = worst(bounds.rates, bounds.input_bound, result.stream.generated_bytes)
        most = generated if most is None else min(most, generated)
    return Cost(most, most or 0, "unpriced" if most is None else "bound", None)


def _spend_limit(drawn: Charges) -> tuple[Limit, str] | None:
    for charge in drawn:
        if charge[0].unit == "usd" and charge[0].binding:
            return charge
    return None


def _dearer_pictures(call: Call, model: str) -> int:
    """What the call's pictures may count beyond `input_bound` when not the model that it names reads them but `model`."""
    return call.pictures * max(0, image_tokens(model) - image_tokens(call.model))


def _unbounded(kind: str, call: Call, spend_limit: tuple[Limit, str], why: str) -> Refusal:
    limit, value = spend_limit
    described = limit.describe(value)
    way_out = "name its price in the configuration" if kind == "model_without_price" else "lift the limit for this agent"
    return Refusal(
        status=402,
        kind=kind,
        message=f"Refused under a spend limit ({described}): {why}, so its cost cannot be bounded; {way_out}.",
        details={"limit": described, "model": call.model},
    )
