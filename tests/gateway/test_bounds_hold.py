"""The bound is one: whatever a provider does within what a request allows, it costs no more than was reserved, and no less than it bills.

The real formats, prices, bounds and settlement, against an oracle that knows only the request and the providers' documented counting.
"""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from holdfast.clock import SECOND
from holdfast.errors import ConnectionCut
from holdfast.events.usage import Usage
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Origin
from holdfast.gateway.admission import Bounds, Charges, bounds, output_to_send, settlement
from holdfast.gateway.options import HostedTool, ProviderOptions
from holdfast.policy.limit import Limit
from holdfast.pricing import PriceList, Rates, cost, without_steps
from holdfast.providers import anthropic, openai
from holdfast.wire import anthropic_messages, openai_chat, openai_embeddings, openai_responses
from holdfast.wire.call import Answer, Call, Rewrite, WireFormat
from holdfast.wire.reasoning import may_be_hidden

NOW = 1_795_000_000 * SECOND
DEFAULT_OUTPUT = 5_000
TOOL = HostedTool(usd=2 * 10**9, tokens=300_000)
LIMITS: tuple[Charges, ...] = tuple(
    tuple((Limit(scope="all", unit=unit, amount=10**15), "") for unit in units)  # type: ignore[arg-type]
    for units in (("usd",), ("tokens",), ("usd", "tokens"))
)


class Asked(Struct):
    """A request with what its provider may count at most. reads: tokens, what the provider's tools read left out."""

    format: WireFormat
    prices: PriceList
    model: str
    body: dict[str, Any]
    reads: int
    history: int = 0
    hosted: bool = False
    tiers: tuple[str, ...] = ("",)
    geos: tuple[str, ...] = ("",)


words = st.text(max_size=200)
OPENAI_TIERS = {None: ("default", "priority", "fast", ""), "auto": ("default", "priority", ""), "default": ("default", "")}
OPENAI_TIERS |= {"flex": ("flex", "default", ""), "priority": ("priority", "default", ""), "fast": ("fast", "default", "")}
CLAUDE_GEOS = {None: ("us", "global", ""), "us": ("us", ""), "global": ("global", ""), "mars": ("us", "mars")}


def one_of(draw: Any, *values: Any) -> Any:
    return draw(st.sampled_from(values))


def up_to(most: int, least: int = 0) -> st.SearchStrategy[int]:
    """Mostly the ends, where bounds break."""
    return st.sampled_from((most, least)) | st.integers(least, most)


def size(*texts: str) -> int:
    return sum(len(text.encode()) for text in texts)


def settings_of_openai(draw: Any, body: dict[str, Any]) -> tuple[str, ...]:
    asked = draw(st.sampled_from(list(OPENAI_TIERS)))
    if asked is not None:
        body["service_tier"] = asked
    return OPENAI_TIERS[asked]


@st.composite
def chats(draw: st.DrawFn) -> Asked:
    model = one_of(draw, "gpt-4o", "gpt-4o-mini", "gpt-5.4", "gpt-6.1-sol", "o3")
    texts = draw(st.lists(words, min_size=1, max_size=4))
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text} for text in texts]}
    reads = size(*texts) + 7 * len(texts) + 100
    if draw(st.booleans()):
        detail = one_of(draw, "low", "high", "auto", "original", None)
        body["messages"].append(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": detail}}]}
        )
        largest = 24_600 if detail == "original" or (detail in ("auto", None) and model in ("gpt-5.4", "gpt-6.1-sol")) else 6_150
        reads += 48_169 if model == "gpt-4o-mini" else largest
    if draw(st.booleans()):
        seconds = draw(st.integers(1, 20))
        data = "//s" + "A" * (seconds * 1_000 * 4 // 3)  # the worst an MP3 can be: 8 kbit/s
        body["messages"].append({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}]})
        reads += 32 * seconds
    if draw(st.booleans()):
        body["n"] = draw(st.integers(1, 4))
    limit = one_of(draw, None, "max_tokens", "max_completion_tokens")
    if limit:
        body[limit] = draw(st.integers(1, 50_000))
    hosted = draw(st.booleans())
    if hosted:
        body["web_search_options"] = {}
    tiers = settings_of_openai(draw, body)
    return Asked(openai_chat.FORMAT, openai.PLUGIN.prices, model, body, reads, hosted=hosted, tiers=tiers)


@st.composite
def responses(draw: st.DrawFn) -> Asked:
    model = one_of(draw, "gpt-4o-mini", "gpt-5.1", "gpt-6.1-terra")
    text = draw(words)
    items: list[Any] = [{"role": "user", "content": text}]
    reads, history = size(text) + 100, 0
    body: dict[str, Any] = {"model": model, "input": items, "instructions": draw(words)}
    reads += size(body["instructions"])
    if draw(st.booleans()):
        items.append({"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "file-1", "detail": "high"}})
        reads += 48_169 if model == "gpt-4o-mini" else 6_150
    if draw(st.booleans()):
        items.append({"type": "reasoning", "id": "rs_1", "summary": []})
        reads += 128_000
    if draw(st.booleans()):
        history = draw(up_to(100_000, 1))
        body["previous_response_id"] = "resp_1"
        reads += history
    if draw(st.booleans()):
        body["max_output_tokens"] = draw(st.integers(16, 50_000))
    hosted = draw(st.booleans())
    if hosted:
        body["tools"] = [{"type": one_of(draw, "web_search", "code_interpreter", "mcp")}]
    tiers = settings_of_openai(draw, body)
    return Asked(openai_responses.FORMAT, openai.PLUGIN.prices, model, body, reads, history, hosted, tiers)


@st.composite
def messages(draw: st.DrawFn) -> Asked:
    model = one_of(draw, "claude-sonnet-4-5", "claude-opus-4-8", "claude-fable-5-2", "claude-opus-5")
    text = draw(words)
    picture = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [picture] if draw(st.booleans()) else "done"}
    content = [{"type": "text", "text": text}, result, *([picture] if draw(st.booleans()) else [])]
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": draw(st.integers(1, 50_000))}
    reads = size(text, "done") + 700 + 4_784 * str(body).count("https://x/y.png")
    hosted = draw(st.booleans())
    if hosted:
        body["tools"] = [{"type": one_of(draw, "web_search_20250305", "code_execution_20250825"), "name": "x"}]
    geo, fast = draw(st.sampled_from(list(CLAUDE_GEOS))), draw(st.booleans())
    body |= {"inference_geo": geo} if geo else {}
    body |= {"speed": "fast"} if fast else {}
    tiers = ("fast", "standard", "") if fast else ("standard", "")
    return Asked(anthropic_messages.FORMAT, anthropic.PLUGIN.prices, model, body, reads, hosted=hosted, tiers=tiers, geos=CLAUDE_GEOS[geo])


@st.composite
def embeddings(draw: st.DrawFn) -> Asked:
    given_ = draw(st.lists(words, min_size=1, max_size=3) | st.lists(st.lists(st.integers(0, 10**5), max_size=50), min_size=1, max_size=3))
    reads = sum(len(each) if isinstance(each, list) else size(each) for each in given_) + 4 * len(given_)
    body = {"model": "text-embedding-3-small", "input": given_}
    return Asked(openai_embeddings.FORMAT, openai.PLUGIN.prices, "text-embedding-3-small", body, reads)


@st.composite
def splits(draw: st.DrawFn, read: int, output: int, tier: str, geo: str) -> Usage:
    cached = draw(up_to(read))
    written = draw(up_to(read - cached))
    short = draw(up_to(written))
    return Usage(input=read, output=output, cached_input=cached, cache_write=written, cache_write_short=short, tier=tier, geo=geo)


def body_of(asked: Asked, usage: Usage, text: str) -> dict[str, Any]:
    """An answer that reports `usage`, as the format's provider writes it."""
    tier = {"service_tier": usage.tier} if usage.tier else {}
    details = {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write}
    match asked.format.name:
        case "openai-chat":
            counts = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output}
            choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
            return {"id": "c", "choices": choices, "usage": {**counts, "prompt_tokens_details": details}, **tier}
        case "openai-responses":
            said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
            called = [{"type": f"{asked.body['tools'][0]['type']}_call", "id": "x"}] if asked.hosted else []
            short = {"cache_write_tokens_details": {"ttl_30m_tokens": usage.cache_write_short}}
            counts = {"input_tokens": usage.input, "output_tokens": usage.output, "total_tokens": usage.input + usage.output}
            return {
                "id": "r",
                "status": "completed",
                "output": [said, *called],
                "usage": {**counts, "input_tokens_details": details | short},
                "tool_usage": {"web_search": {"num_requests": usage.web_searches}},
                **tier,
            }
        case "anthropic-messages":
            plain = usage.input - usage.cached_input - usage.cache_write
            counts = {"input_tokens": plain, "cache_read_input_tokens": usage.cached_input, "output_tokens": usage.output}
            counts["cache_creation_input_tokens"] = usage.cache_write
            more: dict[str, Any] = {"cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write_short}}
            more |= {"speed": usage.tier} if usage.tier else {}
            more |= {"inference_geo": usage.geo} if usage.geo else {}
            name = asked.body["tools"][0]["type"].rpartition("_")[0] if asked.hosted else ""
            called = [{"type": "server_tool_use", "id": "x", "name": name, "input": {}}] if asked.hosted else []
            more["server_tool_use"] = {"web_search_requests": usage.web_searches}
            return {"id": "m", "content": [*called, {"type": "text", "text": text}], "stop_reason": "end_turn", "usage": counts | more}
    return {"data": [], "usage": {"prompt_tokens": usage.input, "total_tokens": usage.input}}


def streamed(asked: Asked, sent: Call, text: str) -> AttemptResult:
    """A stream that was cut after `text`, without any usage."""
    events: dict[str, list[tuple[str, Any]]] = {
        "openai-chat": [("", {"choices": [{"index": 0, "delta": {"content": text}}]})],
        "openai-responses": [("response.output_text.delta", {"type": "response.output_text.delta", "delta": text, "output_index": 0})],
        "anthropic-messages": [
            ("message_start", {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1, "output_tokens": 1}}}),
            ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}),
        ],
    }
    reader = asked.format.stream(sent, Rewrite())
    for name, data in events[asked.format.name]:
        reader.feed((f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(data).encode() + b"\n\n")
    return AttemptResult(status=200, stream=reader, committed=reader.committed, error=ConnectionCut("cut"))


def admitted(asked: Asked, drawn: Charges) -> tuple[bytes, Call, Rates, Bounds]:
    data = json.dumps(asked.body, ensure_ascii=False).encode()
    call = asked.format.parse(data)
    rates = asked.prices.rates(asked.model, NOW, call.tier, call.geo)
    assert rates is not None
    tools = (("*", TOOL),)
    origin = Origin("x.example", 443, tls=True)
    provider = ProviderOptions(name="p", kind=openai.PLUGIN, origin=origin, prefix="/v1", key="", prices=asked.prices, hosted_tools=tools)
    found = bounds(call, asked.model, rates, drawn, DEFAULT_OUTPUT, provider, asked.history)
    assert isinstance(found, Bounds), found
    return data, call, rates, found


def granted(draw: Callable[..., Any], found: Bounds, drawn: Charges) -> tuple[int, int]:
    """Any amounts that the limiter may grant."""
    ask, units = found.ask, {limit.unit for limit, _ in drawn}
    usd = draw(up_to(ask.usd_most, ask.usd_least)) if "usd" in units else ask.usd_most
    tokens = draw(up_to(ask.tokens_most, ask.tokens_least)) if "tokens" in units else ask.tokens_most
    return usd, tokens


@settings(max_examples=300, deadline=None)
@given(asked=st.one_of(chats(), responses(), messages(), embeddings()), data=st.data(), drawn=st.sampled_from(LIMITS))
def test_nothing_is_settled_above_what_was_reserved_or_below_what_is_billed(asked: Asked, data: st.DataObject, drawn: Charges) -> None:
    body, call, rates, found = admitted(asked, drawn)
    usd, tokens = granted(data.draw, found, drawn)
    most = output_to_send(found, call, usd, tokens)
    sent = asked.format.parse(asked.format.rewrite(body, call, Rewrite(max_output=most)))
    assert sent.max_output is not None  # under a limit nothing goes out without a bound
    usage, fees = data.draw(bills(asked, rates, sent.max_output if call.generates else 0))
    how = data.draw(st.sampled_from(("told", "silent", "nonsense", "cut")))
    result, answer = ended(asked, sent, usage, how)
    settled = settlement(result, answer, found, usd, tokens)
    units = {limit.unit for limit, _ in drawn}
    if "usd" in units:
        assert cost(rates, usage) + fees <= settled.charged <= usd
    if "tokens" in units:
        assert usage.input + usage.output <= settled.tokens <= tokens
    if how == "told" and not asked.hosted:
        assert (settled.charged, settled.tokens) == (cost(rates, usage), usage.input + usage.output)


@st.composite
def bills(draw: st.DrawFn, asked: Asked, rates: Rates, may_generate: int) -> tuple[Usage, int]:
    """What the provider bills: tokens, and fees that no usage tells."""
    read, output = draw(up_to(asked.reads)), draw(up_to(may_generate))
    fees = searches = 0
    if asked.hosted:  # what a tool reads and what it bills for itself are in its price together
        more = draw(up_to(min(TOOL.tokens or 0, (TOOL.usd - 2) * 10**6 // dearest_input(rates))))
        read += more
        fees = draw(up_to(TOOL.usd - more * dearest_input(rates) // 10**6 - 2))
        if asked.format.name != "openai-chat" and "'web_search" in str(asked.body["tools"]):
            searches, fees = fees // rates.web_search, 0
    usage = draw(splits(read, output, draw(st.sampled_from(asked.tiers)), draw(st.sampled_from(asked.geos))))
    if asked.format.name == "openai-chat":  # has no word for the shortest time
        usage = replace(usage, cache_write_short=0)
    return Usage(input=read) if asked.format.name == "openai-embeddings" else replace(usage, web_searches=searches), fees


def ended(asked: Asked, sent: Call, usage: Usage, how: str) -> tuple[AttemptResult, Answer | None]:
    shown = usage.output if 0 < usage.output < 1_000 else 1
    if how != "cut":
        return AttemptResult(status=200, whole=True), told(asked, usage, "x" * shown, how)
    if sent.generates and not asked.hosted and usage.output == shown and not may_be_hidden(sent, asked.model):
        result = streamed(asked, sent, "x" * shown)
        return result, None if result.stream is None else result.stream.answer()
    return AttemptResult(status=0, error=ConnectionCut("cut")), None


def told(asked: Asked, usage: Usage, text: str, how: str) -> Answer:
    body = body_of(asked, usage, text)
    if how == "silent":
        del body["usage"]
    elif how == "nonsense":
        body["usage"] = {name: -1 if type(count) is int else count for name, count in body["usage"].items()}
    return asked.format.answer(json.dumps(body).encode())


def dearest_input(rates: Rates) -> int:
    flat = without_steps(rates)
    return max(flat.input, flat.cached_input or 0, flat.cache_write or 0, flat.cache_write_short or 0, 1)


def test_what_a_tool_reads_may_take_a_call_over_every_step_of_the_price() -> None:
    body = {"model": "gpt-6.1-sol", "input": "x", "max_output_tokens": 100_000, "tools": [{"type": "mcp"}], "service_tier": "default"}
    asked = Asked(openai_responses.FORMAT, openai.PLUGIN.prices, "gpt-6.1-sol", body, 1, hosted=True)
    _, _, rates, found = admitted(asked, LIMITS[0])
    assert found.ask.usd_most - TOOL.usd >= cost(rates, Usage(input=300_000, output=100_000, tier="default")) - cost(
        rates, Usage(input=300_000, tier="default")
    )
