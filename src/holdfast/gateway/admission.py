"""What a call may cost: which limits it draws on, the bounds to reserve, the output that the reservation can pay, the cost in the end."""

from collections.abc import Iterable

from msgspec import Struct

from holdfast.events.decision import CostSource
from holdfast.events.usage import Usage
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.limiter import Ask
from holdfast.gateway.options import ProviderOptions
from holdfast.money import Nano
from holdfast.policy.limit import Limit, Scope
from holdfast.pricing import Rates, affordable_output, cost, without_steps, worst, worst_between
from holdfast.wire.call import Answer, Call, Refusal
from holdfast.wire.media import LEAST_IMAGE, image_tokens, kept_tokens
from holdfast.wire.reasoning import may_be_hidden

LEAST_OUTPUT = 16
"""Tokens per choice below which an answer is refused instead of cut short; also the least that the Responses API takes."""

_MOST_WATCHED = 10**15
"""Nano-dollars, or tokens; no call costs a million, or uses as many."""

_WEB_SEARCH = "web_search"
_NOTHING = Ask(usd_least=0, usd_most=0)
_LIFT = "lift the limit for this agent"
_CONTINUES_UNKNOWN = "the answer that it continues (previous_response_id) is not known here"

Charges = tuple[tuple[Limit, str], ...]
"""The limits that a call draws on, each with the value that is counted (an agent's name, a user's id, …)."""

_Drawn = tuple[Limit, str] | None
"""The first of them that counts money, or tokens, and may refuse."""


class Added(Struct, frozen=True, kw_only=True):
    """What tools that the provider runs may add to a call at most. usd: of each that has a price, by its type; total: of all of them.
    tokens: of all together, None when one of them has no bound."""

    usd: tuple[tuple[str, Nano], ...] = ()
    total: Nano = 0
    tokens: int | None = 0


_NONE_ADDED = Added()


class Bounds(Struct, frozen=True, kw_only=True):
    """What one attempt of `call` at `model` may use. rates: None when the model has no price; dearest: the same for a call of unknown
    length, where its length is not known. input_bound: without what the provider's tools read. max_output: None when nothing bounds the
    output. of_tool: it is a call through a tool, whose rates are a price per call."""

    call: Call
    model: str
    rates: Rates | None
    dearest: Rates | None
    input_bound: int
    max_output: int | None
    choices: int
    ask: Ask
    added: Added = _NONE_ADDED
    of_tool: bool = False


class Cost(Struct, frozen=True):
    """amount: nano-dollars, None: not known. charged, tokens: what counts against the limits."""

    amount: Nano | None
    charged: Nano
    source: CostSource
    usage: Usage | None
    tokens: int = 0

    def with_more(self, other: "Cost") -> "Cost":
        """Of an answer that two attempts gave in part, this one first; the usage is the other's, as its stream has told it."""
        charged, tokens = self.charged + other.charged, self.tokens + other.tokens
        if self.amount is None or other.amount is None:
            return Cost(None, charged, "unpriced", other.usage, tokens)
        source = self.source if self.source == "bound" else other.source
        return Cost(self.amount + other.amount, charged, source, other.usage, tokens)


def charges(limits: Iterable[Limit], values: dict[Scope, str]) -> Charges:
    """The limits that apply: a limit on something that the call does not have (no run, no tool) does not."""
    return tuple([(limit, values[limit.scope]) for limit in limits if limit.scope in values])


def bounds(
    call: Call,
    model: str,
    rates: Rates | None,
    drawn: Charges,
    default_max_output: int,
    provider: ProviderOptions | None = None,
    history: int = 0,
) -> Bounds | Refusal:
    """The upper and lower bound to reserve for one attempt at `model`, or why it must not be made under a spend or token limit.

    provider: who is asked; its `hosted_tools` bound what it runs itself. history: tokens of the answer that the call continues without
    resending what led to it (`Call.continues`), 0: not known.
    """
    most_output, input_bound = call.max_output if call.generates else 0, call.input_bound
    if model != call.model:
        input_bound += _dearer_pictures(call, model)
    added, dearest = _NONE_ADDED, rates
    if call.continues:
        input_bound += kept_tokens(history, model)
    if call.hosted:
        added = _added(call.hosted, provider)
        dearest = rates and without_steps(rates)  # what the tools read may take the call over any step
    spend_limit, token_limit = _binding(drawn)
    if spend_limit is not None or token_limit is not None:
        why = _without_bound(call, rates, spend_limit, token_limit, provider, history)
        if why is not None:
            return why
        if most_output is None:
            most_output = default_max_output * call.choices
    return Bounds(
        call=call,
        model=model,
        rates=rates,
        dearest=dearest,
        input_bound=input_bound,
        max_output=most_output,
        choices=call.choices,
        ask=_NOTHING if most_output is None else _ask(call, dearest, input_bound, most_output, added, spend_limit, token_limit),
        added=added,
    )


def tool_bounds(call: Call, tool: str, rates: Rates | None, drawn: Charges) -> Bounds | Refusal:
    """The same for a call through a tool: its price, and no tokens."""
    spend_limit, _ = _binding(drawn)
    if spend_limit is not None and rates is None:
        way_out = f"write tools.{tool}.price_per_call in the configuration (0 for what is free)"
        return _refused("tool_without_price", call, spend_limit, f"the tool {tool} has no price", way_out)
    price = 0 if rates is None else rates.per_call
    ask = Ask(usd_least=0, usd_most=min(price, _MOST_WATCHED)) if spend_limit is None else Ask(usd_least=price, usd_most=price)
    return Bounds(call=call, model="", rates=rates, dearest=rates, input_bound=0, max_output=0, choices=1, ask=ask, of_tool=True)


def _ask(
    call: Call,
    rates: Rates | None,
    input_bound: int,
    most_output: int,
    added: Added,
    spend_limit: _Drawn,
    token_limit: _Drawn,
) -> Ask:
    """A mark to watch must neither refuse nor lower what an agent asks for, be it all the money there is."""
    least_output = LEAST_OUTPUT * call.choices
    if least_output > most_output:
        least_output = most_output
    usd_least = usd_most = 0
    if rates is not None:
        usd_least, usd_most = worst_between(rates, input_bound, least_output, most_output)
        if added is not _NONE_ADDED:
            usd_least, usd_most = usd_least + added.total, usd_most + added.total
        if spend_limit is None:
            usd_least, usd_most = 0, min(usd_most, _MOST_WATCHED)
    read = input_bound if added is _NONE_ADDED else input_bound + (added.tokens or 0)
    tokens_most = read + most_output
    if token_limit is not None:
        return Ask(usd_least=usd_least, usd_most=usd_most, tokens_least=read + least_output, tokens_most=tokens_most)
    return Ask(usd_least=usd_least, usd_most=usd_most, tokens_most=tokens_most if tokens_most < _MOST_WATCHED else _MOST_WATCHED)


def output_to_send(bounds: Bounds, call: Call, granted: Nano, tokens: int) -> int | None:
    """The bound of output tokens per choice to put into the request, or None to leave it as the agent sent it.

    granted: nano-dollars, and `tokens`, that were reserved for it.
    """
    most = bounds.max_output
    if most is None or not call.generates:
        return None
    payable, ask = most, bounds.ask
    if granted < ask.usd_most and bounds.dearest is not None:
        payable = min(payable, affordable_output(bounds.dearest, bounds.input_bound, granted - bounds.added.total))
    if tokens < ask.tokens_most:
        payable = min(payable, tokens - bounds.input_bound - (bounds.added.tokens or 0))
    if payable < most:
        return payable // bounds.choices
    return most // bounds.choices if call.max_output is None else None


def settlement(result: AttemptResult, answer: Answer | None, bounds: Bounds, reserved: Nano, tokens: int) -> Cost:
    """What an attempt cost; `answer` as far as it came. reserved, tokens: what was taken for it.

    An error answer is free. Where the provider may have worked without saying how much, the bound counts: of what was generated for a
    stream that was cut after its first token, where nothing of it can have been hidden, of everything otherwise.
    """
    if bounds.of_tool:
        return _of_tool(result, bounds.rates)
    usage = None if answer is None or not answer.complete else answer.usage
    if usage is not None:
        used = usage.input + usage.output
        if bounds.rates is None:
            return Cost(None, 0, "unpriced", usage, used)
        amount = cost(bounds.rates, usage)
        if bounds.added.total:
            fees = _fees(bounds, answer)
            amount = max(amount, min(amount + fees, reserved) if bounds.ask.usd_most else amount + fees)
        return Cost(amount, amount, "provider", usage, used)
    if result.status >= 400 and result.error is None:
        return Cost(0, 0, "free", None)
    return _unreported(result, bounds, reserved, tokens)


def _of_tool(result: AttemptResult, rates: Rates | None) -> Cost:
    """A tool may bill whatever was sent to it, also what it then rejects or does not answer; only what it failed at itself is free."""
    if result.status >= 500:
        return Cost(0, 0, "free", None)
    return Cost(None, 0, "unpriced", None) if rates is None else Cost(rates.per_call, rates.per_call, "per_call", None)


def _unreported(result: AttemptResult, bounds: Bounds, reserved: Nano, tokens: int) -> Cost:
    """The cost of what may have been billed although nobody said how much."""
    known, rates, most = bounds.max_output is not None, bounds.rates, None if bounds.max_output is None else reserved
    shown = result.stream is not None and result.committed and not bounds.call.hosted and not may_be_hidden(bounds.call, bounds.model)
    if shown and result.stream is not None:
        generated = result.stream.generated_bytes
        used = bounds.input_bound + generated
        tokens = min(tokens, used) if known else used
        if rates is not None:
            charged = worst(rates, bounds.input_bound, generated)
            most = charged if most is None else min(most, charged)
    if rates is None or most is None:
        return Cost(None, 0, "unpriced", None, tokens)
    return Cost(most, most, "bound", None, tokens)


def _fees(bounds: Bounds, answer: Answer | None) -> Nano:
    """What the provider's own tools may have cost beyond what usage tells: searches are in it where they have a price, other tools are
    not. Only tools that were certainly not used are free."""
    used = None if answer is None else answer.hosted
    searched = used is None or any(name.startswith(_WEB_SEARCH) for name in used)
    others = used is None or not all(name.startswith(_WEB_SEARCH) for name in used)
    told = used is not None and bounds.rates is not None and bounds.rates.web_search > 0
    fees = 0
    for name, usd in bounds.added.usd:
        if name.startswith(_WEB_SEARCH):
            fees += usd if searched and not told else 0
        elif others:
            fees += usd
    return fees


def _added(hosted: tuple[str, ...], provider: ProviderOptions | None) -> Added:
    usd: list[tuple[str, Nano]] = []
    tokens: int | None = 0
    for name in hosted:
        price = None if provider is None else provider.hosted_tool(name)
        if price is not None:
            usd.append((name, price.usd))
        tokens = None if tokens is None or price is None or price.tokens is None else tokens + price.tokens
    return Added(usd=tuple(usd), total=sum([each for _, each in usd]), tokens=tokens)


def _binding(drawn: Charges) -> tuple[_Drawn, _Drawn]:
    """The limits on money and on tokens, the first of each."""
    spend_limit: _Drawn = None
    token_limit: _Drawn = None
    for charge in drawn:
        unit = charge[0].unit
        if unit == "usd":
            spend_limit = spend_limit or (charge if charge[0].binding else None)
        elif unit == "tokens":
            token_limit = token_limit or (charge if charge[0].binding else None)
    return spend_limit, token_limit


def _dearer_pictures(call: Call, model: str) -> int:
    """What the call's pictures may count beyond `input_bound` when not the model that it names reads them but `model`."""
    return call.pictures * (image_tokens(model) - LEAST_IMAGE)


def _without_bound(
    call: Call,
    rates: Rates | None,
    spend_limit: _Drawn,
    token_limit: _Drawn,
    provider: ProviderOptions | None,
    history: int,
) -> Refusal | None:
    """Why the call must not be made under the limits that apply, if so."""
    if spend_limit is not None and rates is None:
        subject = f"the model {call.model!r}" if call.model else "this path"
        tier = f" at the tier {call.tier!r}" if call.tier and call.model else ""
        return _refused("model_without_price", call, spend_limit, f"{subject} has no price{tier}", "name its price in the configuration")
    limit = spend_limit or token_limit
    assert limit is not None
    if token_limit is not None and not call.model and (rates is None or rates.per_call):
        why = "this path is relayed unread, so that nobody counts its tokens"
        return _refused("call_without_bound", call, token_limit, why, "take it out of the provider's passthrough list")
    if call.unbounded:
        return _refused("call_without_bound", call, limit, call.unbounded, _LIFT)
    if call.continues and not history:
        return _refused("call_without_bound", call, limit, _CONTINUES_UNKNOWN, "send the whole history instead, with `store: false`")
    for name in call.hosted:
        price = None if provider is None else provider.hosted_tool(name)
        if price is None:
            return _unpriced_tool(call, limit, name, provider, with_tokens=token_limit is not None)
        if token_limit is not None and price.tokens is None:
            return _unpriced_tool(call, token_limit, name, provider, with_tokens=True)
    return None


def _unpriced_tool(call: Call, limit: tuple[Limit, str], name: str, provider: ProviderOptions | None, *, with_tokens: bool) -> Refusal:
    base = name.rstrip("0123456789")  # a version
    pattern = (name if base == name else base + "*")[:64]
    where = "providers.NAME" if provider is None else f"providers.{provider.name}"
    bound = "{usd: 0.30, tokens: 200000}" if with_tokens else "{usd: 0.30}"
    why = f"a tool that the provider runs ({name[:64]!r}) reads and bills what the request does not tell"
    way_out = f'write the most that one call may cost through it, such as {where}.hosted_tools: {{"{pattern}": {bound}}}'
    return _refused("call_without_bound", call, limit, why, way_out)


def _refused(kind: str, call: Call, limit: tuple[Limit, str], why: str, way_out: str) -> Refusal:
    described, spent = limit[0].describe(limit[1]), limit[0].unit == "usd"
    return Refusal(
        status=402,
        kind=kind,
        message=f"Refused under a {'spend' if spent else 'token'} limit ({described}): {why}, "
        f"so {'its cost' if spent else 'the tokens that it uses'} cannot be bounded; {way_out}.",
        details={"limit": described, "model": call.model},
    )
