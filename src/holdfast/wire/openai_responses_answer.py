"""Answers of OpenAI's Responses, whole or assembled from a stream: output items and usage become an `Answer`."""

from math import exp
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.events.usage import MOST_TOKENS, Usage, label
from holdfast.wire.call import Answer, ToolCall
from holdfast.wire.openai_responses_item import Item, ItemReader, Part, called_tool, content, text, tool_call
from holdfast.wire.request_body import NULL

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest)

_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]


class _Written(Struct, gc=False):
    ttl_30m_tokens: _Count | None = None


class _Read(Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    cache_write_tokens_details: _Written | None = None


class _Generated(Struct, gc=False):
    reasoning_tokens: _Count | None = None


class _Usage(Struct, gc=False):
    input_tokens: _Count
    output_tokens: _Count
    total_tokens: object = None
    input_tokens_details: _Read | None = None
    output_tokens_details: _Generated | None = None


class _WebSearch(Struct, gc=False):
    num_requests: _Count | None = None


class _ToolUsage(Struct, gc=False):
    web_search: _WebSearch | None = None


class _Incomplete(Struct, gc=False):
    reason: str | None = None


class Response(Struct, gc=False):
    """A response object; `output` unread, since streams repeat in it what they have sent item by item."""

    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: Raw = NULL
    incomplete_details: _Incomplete | None = None
    usage: Raw = NULL
    tool_usage: Raw = NULL
    service_tier: object = None


class _Logprob(Struct, gc=False):
    logprob: float


read_items = msgspec.json.Decoder(list[Item]).decode
_read_usage = msgspec.json.Decoder(_Usage | None).decode
_read_tool_usage = msgspec.json.Decoder(_ToolUsage | None).decode
_read_logprobs = msgspec.json.Decoder(list[_Logprob] | None).decode


def answer(response: Response, items: list[Item], complete: bool) -> Answer:
    """What a response and its output items say; raises one of UNREADABLE for items that are not what their type says."""
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    others: list[str] = []
    logprobs: list[float] = []
    for item in items:
        if item.kind == "message":
            for part in content(item.content):
                _read_part(part, texts, refusals, logprobs)
        elif item.kind == "reasoning":
            reasoning += [text(part.text) for part in (*content(item.summary), *content(item.content))]
        elif (call := tool_call(item)) is not None:
            calls.append(call)
        elif name := called_tool(item):
            others.append(name)
    reader = ItemReader()
    return Answer(
        model=response.model or "",
        response_id=response.id or "",
        text="".join(texts),
        reasoning="\n\n".join(filter(None, reasoning)),
        refusal="".join(refusals),
        tool_calls=tuple(calls),
        finish_reason=(response.incomplete_details and response.incomplete_details.reason) or response.status or "",
        usage=reported_usage(response, items),
        confidence=exp(min(sum(logprobs) / len(logprobs), 0.0)) if logprobs else None,
        turns=tuple([reader.turn(item) for item in items]),
        hosted=tuple([item.kind.removesuffix("_call") for item in items if _is_hosted(item.kind)]),
        complete=complete,
        other_tools=tuple(others),
    )


_CLIENT_CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call", "apply_patch_call"})


def _is_hosted(kind: str) -> bool:
    """Whether an item may be a call that the provider made itself; of shells and tool searches the answer does not tell."""
    return (kind.endswith("_call") and kind not in _CLIENT_CALLS) or kind.startswith("mcp")


def _read_part(part: Part, texts: list[str], refusals: list[str], logprobs: list[float]) -> None:
    if part.type == "refusal":
        refusals.append(text(part.refusal))
    else:
        texts.append(text(part.text))
        logprobs += [token.logprob for token in _read_logprobs(part.logprobs) or ()]


def reported_usage(response: Response, items: list[Item]) -> Usage | None:
    """None where nothing, or nonsense, was reported."""
    try:
        usage, tools = _read_usage(response.usage), _read_tool_usage(response.tool_usage)
    except UNREADABLE:
        return None
    if usage is None:
        return None
    searches = sum(item.kind == "web_search_call" for item in items)
    if tools is not None and tools.web_search is not None and tools.web_search.num_requests is not None:
        searches = tools.web_search.num_requests
    total = usage.total_tokens if type(usage.total_tokens) is int and usage.total_tokens <= MOST_TOKENS else 0
    output = max(usage.output_tokens, total - usage.input_tokens)  # some servers count reasoning in the total alone
    read, generated = usage.input_tokens_details or _Read(), usage.output_tokens_details or _Generated()
    cached = min(read.cached_tokens or 0, usage.input_tokens)
    written = min(read.cache_write_tokens or 0, usage.input_tokens - cached)
    return Usage(
        input=usage.input_tokens,
        output=output,
        cached_input=cached,
        cache_write=written,
        cache_write_short=min((read.cache_write_tokens_details or _Written()).ttl_30m_tokens or 0, written),
        reasoning=min(generated.reasoning_tokens or 0, output),
        web_searches=searches,
        tier=label(response.service_tier),
    )
