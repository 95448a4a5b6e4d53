"""OpenAI Chat Completions: `POST /v1/chat/completions`, as OpenAI and every compatible server speak it."""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from holdfast.errors import MalformedRequest
from holdfast.wire import openai_errors
from holdfast.wire.call import Answer, Call, Family, Refusal, Rewrite, StreamReader
from holdfast.wire.openai_chat_answer import ChatStreamReader, read_answer
from holdfast.wire.openai_chat_message import Message, media_bound, turn
from holdfast.wire.request_body import NULL, Fields, check_names, checked, has_duplicates, one_line, read_fields, with_changes, without

_PER_REQUEST = 600
"""Room for what chat templates put around a request; the tool instructions of open models are the longest, about 200 tokens."""
_PER_MESSAGE = 8
_PER_TOOL = 16
"""Role markers and signatures; what they replace (the JSON around them, at least 20 bytes) is counted by its bytes already."""

_HOSTED_FIELDS = {"web_search_options": "web_search", "search_parameters": "live_search", "plugins": "plugins"}
"""Fields that let the provider run tools, and the type of tool by which the configuration bounds them."""

_UNBOUNDED_FIELDS = {
    "models": "models lets the provider choose another one at its price",
    "prediction": "tokens of a prediction that are rejected are billed beyond the bound of generated tokens",
    "audio": "audio is billed at its own price",
}
_SPECIAL = frozenset({*_HOSTED_FIELDS, *_UNBOUNDED_FIELDS})
_OFF = (NULL, Raw(b"[]"), Raw(b"false"))

_Tokens = Annotated[int, Meta(ge=-1, le=10**12)]
"""0 and -1 are no bound: some servers (Ollama, LM Studio) generate without end on them."""
_Choices = Annotated[int, Meta(ge=1, le=10_000)]


class _StreamOptions(Struct, gc=False):
    include_usage: bool | None = None


class _Params(Struct, gc=False):
    model: str
    stream: bool | None = None
    n: _Choices | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stream_options: _StreamOptions | None = None
    service_tier: str | None = None
    user: str | None = None
    metadata: dict[str, object] | None = None
    safety_identifier: str | None = None


class _Tool(Struct, gc=False):
    type: str | None = None


_GUARDED = frozenset({*_Params.__struct_fields__, *_SPECIAL, "messages", "tools", "functions"})

_params = msgspec.json.Decoder(_Params).decode
_raw_list = msgspec.json.Decoder(list[Raw]).decode
_messages = msgspec.json.Decoder(list[Message]).decode
_tools = msgspec.json.Decoder(list[_Tool] | None).decode
_raw_object = msgspec.json.Decoder(Fields | None).decode
_encode = msgspec.json.encode


class _OpenAIChat:
    name = "openai-chat"
    family: Family = "openai"
    resumable = False

    def parse(self, body: bytes) -> Call:
        line = one_line(body)
        fields = read_fields(line)
        rest = without(fields, ("messages", "tools", "functions"))
        check_names(fields, _GUARDED)
        params = checked(_params, rest)
        if not params.model:
            raise MalformedRequest("model must not be empty.", "model")
        raw_messages = fields.get("messages", NULL)
        messages = checked(_messages, raw_messages, "messages")
        if not messages:
            raise MalformedRequest("messages must hold at least one message.", "messages")
        tools_field = "functions" if fields.get("tools", NULL) == NULL else "tools"
        tools = fields.get(tools_field, NULL)
        schemas = checked(_tools, tools, tools_field) or ()
        media = media_bound(messages, params.model)
        special = not _SPECIAL.isdisjoint(fields)
        overheads = _PER_REQUEST + _PER_MESSAGE * len(messages) + _PER_TOOL * len(schemas)
        limit = _max_output(params)
        choices = params.n or 1
        return Call(
            model=params.model,
            stream=bool(params.stream),
            turns=tuple([turn(message.role, message) for message in messages]),
            messages=tuple(_raw_list(raw_messages)),
            tools=None if tools == NULL else tools,
            params=rest,
            max_output=None if limit is None else limit * choices,
            newer_bound=params.max_completion_tokens is not None and params.max_tokens is None,
            choices=choices,
            unambiguous=not has_duplicates(line, fields),
            input_bound=len(body) + overheads + media.tokens,
            pictures=media.pictures,
            unbounded=(_unbounded(fields) if special else "") or media.unbounded,
            hosted=_hosted(fields, params.model, schemas) if special or schemas or "-search-" in params.model else (),
            tier=params.service_tier if params.service_tier not in (None, "auto") else "",
            user=_user(params),
        )

    def answer(self, body: bytes) -> Answer:
        return read_answer(body)

    def stream(self, call: Call, rewrite: Rewrite) -> StreamReader:
        return ChatStreamReader(hide_usage=rewrite.usage_in_stream and not _usage_wanted(call))

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        def changes(fields: Fields) -> dict[str, Raw]:
            changed: dict[str, Raw] = {}
            if rewrite.model is not None and rewrite.model != call.model:
                changed["model"] = Raw(_encode(rewrite.model))
            if rewrite.max_output is not None:
                changed.update(_bounded(fields, rewrite.max_output, rewrite.modern))
            elif call.max_output is not None and not rewrite.modern:  # a bound that the target does not read would bound nothing
                changed.update(_bounded(fields, call.max_output // call.choices, modern=False))
            if rewrite.usage_in_stream and call.stream and not _usage_wanted(call):
                options = _raw_object(fields.get("stream_options", NULL)) or {}
                changed["stream_options"] = Raw(_encode({**options, "include_usage": True}))
            return changed

        return with_changes(body, changes)

    def refusal(self, refusal: Refusal) -> bytes:
        return openai_errors.refusal_body(refusal)

    def error_event(self, message: str, kind: str = "upstream_failed") -> bytes:
        return openai_errors.error_event(message, kind)

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> bytes:
        head = {"id": response_id, "created": created_s, "model": call.model}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        if not call.stream:
            message = {"role": "assistant", "content": text, "refusal": None}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            return _encode({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
        head["object"] = "chat.completion.chunk"
        said = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
        done = {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks: list[Mapping[str, object]] = [{**head, "choices": [said]}, {**head, "choices": [done]}]
        if _usage_wanted(call):
            chunks.append({**head, "choices": [], "usage": usage})
        return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def _max_output(params: _Params) -> int | None:
    """Per choice; the newer name is the one that counts where a body has both, so the larger of them bounds what any server makes."""
    newer, older = params.max_completion_tokens, params.max_tokens
    if newer is not None and older is not None:
        return max(newer, older) if min(newer, older) > 0 else None
    limit = older if newer is None else newer
    return limit if limit is not None and limit > 0 else None


def _bounded(fields: Fields, bound: int, modern: bool) -> dict[str, Raw]:
    """Every bound that the body has, lowered; where the target would read none of them, the one that it reads."""
    changed: dict[str, Raw] = {}
    given: dict[str, int] = {}
    for name in ("max_completion_tokens", "max_tokens"):
        limit = msgspec.json.decode(fields.get(name, NULL), type=int | None)
        if limit is not None:
            given[name] = min(limit, bound) if limit > 0 else bound
            if limit != given[name]:
                changed[name] = Raw(_encode(bound))
    if not given or (not modern and "max_tokens" not in given):
        changed["max_completion_tokens" if modern else "max_tokens"] = Raw(_encode(min(given.values(), default=bound)))
    return changed


def _usage_wanted(call: Call) -> bool:
    """Whether the agent itself asked for usage in its stream."""
    options = _params(call.params).stream_options
    return options is not None and bool(options.include_usage)


def _unbounded(fields: Fields) -> str:
    for name, reason in _UNBOUNDED_FIELDS.items():
        if fields.get(name, NULL) not in _OFF:
            return reason
    return ""


def _hosted(fields: Fields, model: str, tools: list[_Tool] | tuple[()]) -> tuple[str, ...]:
    """The tools that the provider runs: by their own fields, in the list of tools, built into models that search."""
    found = [kind for name, kind in _HOSTED_FIELDS.items() if fields.get(name, NULL) not in _OFF]
    found += [tool.type for tool in tools if tool.type not in (None, "function", "custom")]
    if "-search-" in model and "web_search" not in found:
        found.append("web_search")
    return tuple(found)


def _user(params: _Params) -> str:
    """The end user, by the field that is meant for it, by what agents write into `metadata`, by the provider's abuse identifier."""
    if params.user:
        return params.user
    for name in ("user_id", "user", "end_user"):
        user = params.metadata.get(name) if params.metadata else None
        if isinstance(user, str) and user:
            return user
    return params.safety_identifier or ""


FORMAT = _OpenAIChat()
