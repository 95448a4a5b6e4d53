"""Answers of Anthropic's Messages, whole or assembled from a stream: blocks and usage become an `Answer`."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.events.usage import MOST_TOKENS, Usage, label
from holdfast.wire.anthropic_content import PROVIDERS_CALLS, Block, ContentReader, text
from holdfast.wire.call import Answer, ToolCall
from holdfast.wire.request_body import NULL

_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]


class _ServerTools(Struct, gc=False):
    web_search_requests: _Count | None = None


class _Written(Struct, gc=False):
    ephemeral_5m_input_tokens: _Count | None = None


class _OutputDetails(Struct, gc=False):
    thinking_tokens: _Count | None = None


class Tokens(Struct, gc=False):
    """The `usage` of a message: input is reported in three parts that do not overlap. `service_tier` is not read: what it may say costs
    the same (`priority` is capacity that was paid in advance), `speed` and `inference_geo` have prices of their own."""

    input_tokens: _Count | None = None
    cache_creation_input_tokens: _Count | None = None
    cache_read_input_tokens: _Count | None = None
    cache_creation: _Written | None = None
    output_tokens: _Count | None = None
    output_tokens_details: _OutputDetails | None = None
    server_tool_use: _ServerTools | None = None
    speed: object = None
    inference_geo: object = None

    def updated(self, later: "Tokens") -> "Tokens":
        """Counts are running totals: a later one replaces, what is left out stays."""
        known = {name: value for name in self.__struct_fields__ if (value := getattr(later, name)) is not None}
        return msgspec.structs.replace(self, **known)

    def usage(self) -> Usage:
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        return Usage(
            input=(self.input_tokens or 0) + cached + written,
            output=self.output_tokens or 0,
            cached_input=cached,
            cache_write=written,
            cache_write_short=min((self.cache_creation or _Written()).ephemeral_5m_input_tokens or 0, written),
            reasoning=(self.output_tokens_details or _OutputDetails()).thinking_tokens or 0,
            web_searches=(self.server_tool_use or _ServerTools()).web_search_requests or 0,
            tier=label(self.speed),
            geo=label(self.inference_geo),
        )


class StopDetails(Struct, gc=False):
    explanation: str | None = None


class Message(Struct, gc=False):
    """A whole answer."""

    content: list[Block]
    id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Raw = NULL


_read_tokens = msgspec.json.Decoder(Tokens | None).decode


def read_tokens(raw: Raw) -> Tokens | None:
    """None where nothing, or nonsense, was reported."""
    try:
        tokens: Tokens | None = _read_tokens(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return tokens


def answer(message: Message, tokens: Tokens | None, complete: bool = True) -> Answer:
    """What the message says; raises what msgspec raises, or MalformedRequest, for blocks that are not what their type says."""
    said = "".join([text(block.text) for block in message.content if block.type == "text"])
    calls = tuple(_call(block) for block in message.content if block.type == "tool_use")
    return Answer(
        model=message.model or "",
        response_id=message.id or "",
        text=said,
        reasoning="\n\n".join(filter(None, (text(block.thinking) for block in message.content if block.type == "thinking"))),
        refusal=_refusal(message, said),
        tool_calls=calls,
        finish_reason=message.stop_reason or "",
        usage=tokens.usage() if tokens is not None else None,
        turns=(ContentReader().turn("assistant", message.content),) if message.content else (),
        hosted=tuple([_hosted(block) for block in message.content if block.type in _HOSTED]),
        complete=complete,
        other_tools=tuple([text(block.name) for block in message.content if block.type in PROVIDERS_CALLS]),
    )


_HOSTED = frozenset({"server_tool_use", "mcp_tool_use"})


def _hosted(block: Block) -> str:
    return "mcp" if block.type == "mcp_tool_use" else text(block.name)


def _refusal(message: Message, said: str) -> str:
    if message.stop_reason != "refusal":
        return ""
    return (message.stop_details and message.stop_details.explanation) or said or "refusal"


def _call(block: Block) -> ToolCall:
    return ToolCall(text(block.name), (bytes(block.input) or b"{}").decode(), text(block.id))
