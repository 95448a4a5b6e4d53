"""OpenAI Responses: `POST /v1/responses`."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.errors import MalformedAnswer
from holdfast.wire import openai_errors, openai_responses_canned
from holdfast.wire.call import Answer, Call, Family, Refusal, Rewrite, StreamReader
from holdfast.wire.openai_responses_answer import UNREADABLE, Response, answer, read_items
from holdfast.wire.openai_responses_item import Item, ItemReader
from holdfast.wire.openai_responses_stream import ResponsesStreamReader
from holdfast.wire.request_body import NULL, Fields, check_names, checked, has_duplicates, one_line, read_fields, with_changes, without

LEAST_OUTPUT = 16
"""Tokens below which the API takes no `max_output_tokens`: where less can be paid, the call cannot be made."""

_REQUEST_TOKENS = 600
_ITEM_TOKENS = 20
_TOOL_TOKENS = 100
_DEFINED_TOOL_TOKENS = 2_000  # tools that the API describes itself (shell, apply_patch)

_CLIENT_TOOLS = frozenset({"function", "custom", "namespace", "local_shell", "shell", "apply_patch", "tool_search"})
"""Types of tools that the agent runs; any other is run by the provider."""

_ELSEWHERE = {
    "conversation": "a history that the provider keeps and others may add to (conversation)",
    "prompt": "a prompt template that the provider keeps, of unknown length and with tools of its own",
    "background": "an answer that is fetched later, whose usage never comes by here (background)",
    "context_management": "compaction by the provider",
}
_OFF = (NULL, Raw(b"[]"), Raw(b"{}"), Raw(b"false"), Raw(b'""'))


class _Environment(Struct, gc=False):
    type: str | None = None


class _Tool(Struct, gc=False):
    type: str | None = None
    execution: str | None = None
    environment: _Environment | None = None


class _Reasoning(Struct, gc=False):
    context: str | None = None


class _Metadata(Struct, gc=False):
    user_id: str | None = None


class _Conversation(Struct, gc=False):
    id: str = ""


class _Request(Struct, gc=False):
    model: Annotated[str, Meta(min_length=1)]
    input: str | list[Item] | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    tools: list[_Tool] | None = None
    service_tier: str | None = None
    user: str | None = None
    metadata: _Metadata | None = None
    safety_identifier: str | None = None
    previous_response_id: str | None = None
    reasoning: _Reasoning | None = None
    conversation: str | _Conversation | None = None


_GUARDED = frozenset({*_Request.__struct_fields__, *_ELSEWHERE, "instructions"})

_read_request = msgspec.json.Decoder(_Request).decode
_read_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_read_messages = msgspec.json.Decoder(list[Raw]).decode
_read_response = msgspec.json.Decoder(Response).decode


class OpenAIResponses:
    """Implements `WireFormat`."""

    name = "openai-responses"
    family: Family = "openai"
    resumable = True

    def parse(self, body: bytes) -> Call:
        line = one_line(body)
        fields = read_fields(line)
        check_names(fields, _GUARDED)
        request = checked(_read_request, line)
        items, messages = _history(request, fields)
        reader = ItemReader(request.model)
        tools = _tools(request, items)
        return Call(
            model=request.model,
            stream=bool(request.stream),
            turns=tuple([reader.turn(item, f"input[{index}]") for index, item in enumerate(items)]),
            messages=messages,
            system=_present(fields, "instructions"),
            tools=_present(fields, "tools"),
            params=without(fields, ("input", "instructions", "tools")),
            max_output=request.max_output_tokens,
            unambiguous=not has_duplicates(line, fields),
            input_bound=len(body) + _overhead(tools) + _ITEM_TOKENS * len(items) + reader.media_tokens,
            pictures=reader.pictures,
            unbounded=reader.unbounded or _unbounded(request, fields),
            hosted=tuple([tool.type or "" for tool in tools if _is_hosted(tool)]),
            continues=request.previous_response_id or "",
            tier=request.service_tier if request.service_tier not in (None, "auto") else "",
            user=request.user or (request.metadata and request.metadata.user_id) or request.safety_identifier or "",
            conversation=_conversation(request),
        )

    def answer(self, body: bytes) -> Answer:
        try:
            response = _read_response(body)
            return answer(response, read_items(response.output), response.status not in ("queued", "in_progress"))
        except UNREADABLE as error:
            raise MalformedAnswer(f"not an OpenAI response: {error}") from None

    def stream(self, call: Call, rewrite: Rewrite) -> StreamReader:
        return ResponsesStreamReader()

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        """A bound below LEAST_OUTPUT goes out as it is: the API refuses it unbilled, and a higher one could cost more than allowed."""

        def changes(_: Fields) -> dict[str, Raw]:
            changed = {}
            if rewrite.model is not None and rewrite.model != call.model:
                changed["model"] = Raw(msgspec.json.encode(rewrite.model))
            if rewrite.max_output is not None and (call.max_output is None or rewrite.max_output < call.max_output):
                changed["max_output_tokens"] = Raw(msgspec.json.encode(rewrite.max_output))
            return changed

        return with_changes(body, changes)

    def refusal(self, refusal: Refusal) -> bytes:
        return openai_errors.refusal_body(refusal)

    def error_event(self, message: str, kind: str = "upstream_failed") -> bytes:
        """OpenAI documents code, message and param at the top, and sends them in `error`, on which its SDKs raise APIError."""
        error = openai_errors.error_object(502, kind, message)
        data = {"type": "error", "sequence_number": 0, "code": error["code"], "message": message, "param": None, "error": error}
        return b"event: error\ndata: " + msgspec.json.encode(data) + b"\n\n"

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> bytes:
        write = openai_responses_canned.stream if call.stream else openai_responses_canned.response
        return write(call, text, response_id, created_s)


def _history(request: _Request, fields: Fields) -> tuple[list[Item], tuple[Raw, ...]]:
    """The items of the input, and the same as raw JSON; plain text is one message of the user."""
    if isinstance(request.input, str):
        said = fields["input"]
        return [Item("message", "user", said)], (Raw(b'{"role":"user","content":%b}' % bytes(said)),)
    if not request.input:
        return [], ()
    return request.input, tuple(_read_messages(fields["input"]))


def _present(fields: Fields, name: str) -> Raw | None:
    return raw if (raw := fields.get(name, NULL)) != NULL else None


def _tools(request: _Request, items: list[Item]) -> list[_Tool]:
    """Tools of the request, and those that Codex sends as an item of the input."""
    tools = list(request.tools or ())
    for index, item in enumerate(items):
        if item.type == "additional_tools":
            tools += checked(_read_tools, item.tools, f"input[{index}].tools") or ()
    return tools


def _overhead(tools: list[_Tool]) -> int:
    return _REQUEST_TOKENS + sum(_TOOL_TOKENS if tool.type in ("function", "custom") else _DEFINED_TOOL_TOKENS for tool in tools)


def _unbounded(request: _Request, fields: Fields) -> str:
    if request.previous_response_id and request.reasoning is not None and request.reasoning.context == "all_turns":
        return "reasoning of earlier turns that the usage of the last one may not contain (reasoning.context)"
    for name, reason in _ELSEWHERE.items():
        if fields.get(name, NULL) not in _OFF:
            return reason
    return ""


def _is_hosted(tool: _Tool) -> bool:
    """Whether the provider runs it."""
    elsewhere = tool.environment is not None and tool.environment.type != "local"
    return elsewhere or tool.type not in _CLIENT_TOOLS or (tool.type == "tool_search" and tool.execution != "client")


def _conversation(request: _Request) -> str:
    if isinstance(request.conversation, str):
        return request.conversation
    return request.conversation.id if request.conversation is not None else request.previous_response_id or ""


FORMAT = OpenAIResponses()
