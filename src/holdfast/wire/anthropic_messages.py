"""Anthropic Messages: `POST /v1/messages`."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire import anthropic_canned, anthropic_errors
from holdfast.wire.anthropic_answer import Message, answer, read_tokens
from holdfast.wire.anthropic_content import Content, ContentReader
from holdfast.wire.anthropic_stream import AnthropicStreamReader
from holdfast.wire.call import Answer, Call, Family, Refusal, Rewrite, StreamReader, Turn
from holdfast.wire.request_body import NULL, Fields, check_names, checked, has_duplicates, one_line, read_fields, with_changes, without

LEAST_THINKING = 1_024
"""Tokens below which the API takes no `thinking.budget_tokens`."""

_REQUEST_TOKENS = 1_000  # the system prompt that the API adds for tool use has up to about 700
_MESSAGE_TOKENS = 20
_TOOL_TOKENS = 100
_DEFINED_TOOL_TOKENS = 2_000  # tools that the API describes itself (bash, text editor): up to about 735
_TOOLSET_TOKENS = 20_000

_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_", "browser_")
"""Types of tools that the agent runs, versions left out; any other is run by the provider."""

_ELSEWHERE = {
    "container": "a container that the provider keeps",
    "thread": "a history that the provider keeps (thread)",
    "fallbacks": "models that the provider chooses (fallbacks)",
    "compaction": "compaction by the provider",
}
_OFF = (NULL, Raw(b"[]"), Raw(b"{}"), Raw(b"false"), Raw(b'""'))


class _Message(Struct, gc=False):
    role: str
    content: Content


class _Tool(Struct, gc=False):
    type: str | None = None


class _Metadata(Struct, gc=False):
    user_id: str | None = None


class _Thinking(Struct, gc=False):
    type: str = ""
    budget_tokens: int | None = None


class _Account(Struct, gc=False):
    account_uuid: str = ""
    device_id: str = ""


class _Request(Struct, gc=False):
    model: Annotated[str, Meta(min_length=1)]
    messages: list[_Message]
    max_tokens: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    metadata: _Metadata | None = None
    thinking: _Thinking | None = None
    speed: str | None = None
    inference_geo: str | None = None
    mcp_servers: list[Raw] | None = None
    context_management: Raw = NULL


_GUARDED = frozenset({*_Request.__struct_fields__, *_ELSEWHERE, "system"})

_read_request = msgspec.json.Decoder(_Request).decode
_read_messages = msgspec.json.Decoder(list[Raw]).decode
_read_answer = msgspec.json.Decoder(Message).decode
_read_thinking = msgspec.json.Decoder(_Thinking | None).decode
_read_account = msgspec.json.Decoder(_Account).decode


class AnthropicMessages:
    """Implements `WireFormat`."""

    name = "anthropic-messages"
    family: Family = "anthropic"
    resumable = False

    def parse(self, body: bytes) -> Call:
        line = one_line(body)
        fields = read_fields(line)
        check_names(fields, _GUARDED)
        request = checked(_read_request, line)
        content = ContentReader()
        turns = tuple(_turns(request.messages, content))
        return Call(
            model=request.model,
            stream=bool(request.stream),
            turns=turns,
            messages=tuple(_read_messages(fields["messages"])),
            system=_present(fields, "system"),
            tools=_present(fields, "tools"),
            params=without(fields, ("messages", "system", "tools")),
            max_output=request.max_tokens,
            unambiguous=not has_duplicates(line, fields),
            input_bound=len(body) + _overhead(request) + content.media_tokens,
            unbounded=content.unbounded or _unbounded(request, fields),
            hosted=_hosted(request) if request.tools or request.mcp_servers else (),
            tier=request.speed or "",
            geo=request.inference_geo or "",
            user=_user((request.metadata and request.metadata.user_id) or ""),
        )

    def answer(self, body: bytes) -> Answer:
        try:
            message = _read_answer(body)
            return answer(message, read_tokens(message.usage))
        except (msgspec.MsgspecError, ValueError, RecursionError, MalformedRequest) as error:
            raise MalformedAnswer(f"not an Anthropic message: {error}") from None

    def stream(self, call: Call, rewrite: Rewrite) -> StreamReader:
        return AnthropicStreamReader()

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        """A lowered `max_tokens` takes `thinking.budget_tokens` along, which must stay below it. Where less than the API's least budget
        is left, thinking is switched off: an answer without it is worth more than none."""

        def changes(fields: Fields) -> dict[str, Raw]:
            changed = {}
            if rewrite.model is not None and rewrite.model != call.model:
                changed["model"] = _raw(rewrite.model)
            if rewrite.max_output is not None and (call.max_output is None or rewrite.max_output < call.max_output):
                changed["max_tokens"] = _raw(rewrite.max_output)
                changed |= _lowered_thinking(fields, rewrite.max_output)
            return changed

        return with_changes(body, changes)

    def refusal(self, refusal: Refusal) -> bytes:
        return anthropic_errors.refusal_body(refusal)

    def error_event(self, message: str, kind: str = "upstream_failed") -> bytes:
        return anthropic_errors.error_event(message, kind)

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> bytes | None:
        write = anthropic_canned.stream if call.stream else anthropic_canned.message
        return write(call, text, response_id)


def _turns(messages: list[_Message], content: ContentReader) -> list[Turn]:
    return [content.turn(message.role, message.content, f"messages[{index}].content") for index, message in enumerate(messages)]


def _present(fields: Fields, name: str) -> Raw | None:
    return raw if (raw := fields.get(name, NULL)) != NULL else None


def _overhead(request: _Request) -> int:
    tokens = _REQUEST_TOKENS + _MESSAGE_TOKENS * len(request.messages)
    for tool in request.tools or ():
        if tool.type is None or tool.type == "custom":
            tokens += _TOOL_TOKENS
        else:
            tokens += _TOOLSET_TOKENS if "toolset" in tool.type else _DEFINED_TOOL_TOKENS
    return tokens


def _unbounded(request: _Request, fields: Fields) -> str:
    for name, reason in _ELSEWHERE.items():
        if fields.get(name, NULL) not in _OFF:
            return reason
    return "compaction by the provider" if b'"compact_' in bytes(request.context_management) else ""


def _hosted(request: _Request) -> tuple[str, ...]:
    """The tools that the provider runs; those of an MCP server are named by a toolset or, in the older form, by nothing."""
    tools = [tool.type for tool in request.tools or () if tool.type is not None and not tool.type.startswith(_CLIENT_TOOLS)]
    toolsets = sum(kind.startswith("mcp") for kind in tools)
    return (*tools, *["mcp_server"] * (len(request.mcp_servers or ()) - toolsets))


def _user(user_id: str) -> str:
    """Claude Code puts its session next to the account; a limit per user must not start afresh with every session."""
    if user_id.startswith("{"):
        try:
            account = _read_account(user_id)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return user_id
        return account.account_uuid or account.device_id or user_id
    return user_id.partition("_session_")[0] if user_id.startswith("user_") else user_id


def _lowered_thinking(fields: Fields, max_tokens: int) -> dict[str, Raw]:
    thinking = _read_thinking(fields.get("thinking", NULL))
    if thinking is None or thinking.budget_tokens is None or thinking.budget_tokens < max_tokens:
        return {}
    if max_tokens <= LEAST_THINKING:
        return {"thinking": Raw(b'{"type":"disabled"}')}
    changed = msgspec.json.decode(fields["thinking"], type=dict[str, Raw]) | {"budget_tokens": _raw(max_tokens - 1)}
    return {"thinking": Raw(msgspec.json.encode(changed))}


def _raw(value: str | int) -> Raw:
    return Raw(msgspec.json.encode(value))


FORMAT = AnthropicMessages()
