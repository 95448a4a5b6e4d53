"""Reads a Chat Completions request, for a target of another format."""

import msgspec
from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire.request_body import checked
from holdfast.wire.translation import media
from holdfast.wire.translation.chat_fields import IN_MESSAGES, TO_ANTHROPIC, TO_RESPONSES
from holdfast.wire.translation.fields import Fields, no_place, output_bound
from holdfast.wire.translation.neutral import (
    EFFORTS,
    Call,
    Effort,
    FormatName,
    Message,
    OutputFormat,
    Part,
    Refused,
    Request,
    Result,
    Role,
    Text,
    Tool,
    ToolChoice,
)
from holdfast.wire.translation.tools import allowed, named

_SHARED = ("metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation")
_ROLES: dict[str, Role] = {"system": "system", "developer": "developer", "user": "user", "assistant": "assistant", "tool": "user"}

_text = msgspec.json.Decoder(str).decode


def read_request(body: bytes, target: FormatName) -> Request:
    fields = Fields.of_body(body)
    fields.apply(TO_ANTHROPIC if target == "anthropic-messages" else TO_RESPONSES, target)
    _stream_options(fields, target)
    choice, only = _tool_choice(fields, target)
    tools = allowed([_tool(Fields.of(raw, at), target) for raw, at in fields.each("tools")], only)
    messages = [_message(Fields.of(raw, at), target) for raw, at in fields.each("messages")]
    user, safety = fields.text("user"), fields.text("safety_identifier")
    newer, older = fields.integer("max_completion_tokens"), fields.integer("max_tokens")
    limit, named_limit = (older, "max_tokens") if newer is None else (newer, "max_completion_tokens")
    return Request(
        model=fields.text("model") or "",
        messages=messages,
        tools=tools,
        choice=choice,
        parallel=fields.flag("parallel_tool_calls"),
        format=_format(fields, target),
        effort=effort(fields, "reasoning_effort"),
        max_output=output_bound(limit, named_limit, target),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        stop=_stop(fields),
        verbosity=fields.text("verbosity") or "",
        user=user or safety or "",
        stream=bool(fields.flag("stream")),
        shared={name: raw for name in _SHARED if (raw := fields.raw(name)) is not None},
    )


def effort(fields: Fields, name: str) -> Effort:
    value = fields.text(name) or ""
    if value and value not in EFFORTS:
        raise MalformedRequest(f"{fields.path(name)} is {value!r}; it can be {', '.join(EFFORTS)}.", fields.path(name))
    return value


def _stream_options(fields: Fields, target: FormatName) -> None:
    options = fields.child("stream_options")
    if options is not None:
        options.leave("include_usage", "include_obfuscation")  # the answer's writer reads the first; the second only pads what is sent
        options.refuse_rest(target)


def _stop(fields: Fields) -> tuple[str, ...]:
    if "stop" not in fields:
        return ()
    raw = fields.raw("stop") or Raw(b"[]")
    if bytes(raw).startswith(b'"'):
        return (checked(_text, raw, "stop"),)
    return tuple(Fields({"stop": raw}).names("stop"))


def _message(fields: Fields, target: FormatName) -> Message:
    fields.apply(IN_MESSAGES, target)
    at = fields.at
    role = fields.text("role") or ""
    if role not in _ROLES:
        raise no_place(fields.path("role"), target, f"there is no role {role!r}")
    if role == "tool":
        fields.leave("name")  # the call that the id names has it too
        call_id = fields.text("tool_call_id") or ""
        parts: list[Part] = [Result(call_id, tuple(_texts(fields, target)), at=at)]
    else:
        if "name" in fields:
            raise no_place(fields.path("name"), target, "speakers of the same role have no names there")
        parts = list(_content(fields, target))
        if (refusal := fields.text("refusal")) is not None:
            parts.append(Refused(refusal))
        parts += [_call(Fields.of(raw, where), target) for raw, where in fields.each("tool_calls")]
    fields.refuse_rest(target)
    return Message(_ROLES[role], tuple(parts), at)


def _texts(fields: Fields, target: FormatName) -> list[Text]:
    content = _content(fields, target)
    for part in content:
        if not isinstance(part, Text):
            raise no_place(fields.path("content"), target, "a tool's message is text")
    return [part for part in content if isinstance(part, Text)]


def _content(fields: Fields, target: FormatName) -> list[Part]:
    content = fields.texts_or_parts("content")
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(part, target) for part in content]


def _part(fields: Fields, target: FormatName) -> Part:
    fields.leave("prompt_cache_breakpoint", "cache_control")  # where a cache may begin: only the price
    kind = fields.text("type")
    part: Part
    match kind:
        case "text":
            part = Text(fields.text("text") or "")
        case "refusal":
            part = Refused(fields.text("refusal") or "")
        case "image_url":
            part = _image(fields, target)
        case "file":
            part = _file(fields, target)
        case _:
            raise no_place(fields.at, target, f"content of type {kind!r} is not translated")
    fields.refuse_rest(target)
    return part


def _image(fields: Fields, target: FormatName) -> Part:
    image = fields.child("image_url") or Fields({})
    part = media.image(image.text("url") or "", image.text("detail") or "", fields.at)
    image.refuse_rest(target)
    return part


def _file(fields: Fields, target: FormatName) -> Part:
    file = fields.child("file") or Fields({})
    if "file_id" in file:
        raise no_place(file.path("file_id"), target, "the file lies at OpenAI")
    part = media.document(file.text("file_data") or "", "", file.text("filename") or "", fields.at)
    file.refuse_rest(target)
    return part


def _call(fields: Fields, target: FormatName) -> Call:
    fields.leave("index")
    kind = fields.text("type") or "function"
    call_id = fields.text("id") or ""
    called = fields.child(kind) if kind in ("function", "custom") else None
    if called is None:
        raise no_place(fields.at, target, f"calls of type {kind!r} are not translated")
    custom = kind == "custom"
    call = Call(call_id, called.text("name") or "", called.text("input" if custom else "arguments") or "", custom, fields.at)
    called.refuse_rest(target)
    fields.refuse_rest(target)
    return call


def _tool(fields: Fields, target: FormatName) -> Tool:
    fields.leave("cache_control")
    kind = fields.text("type") or "function"
    defined = fields.child(kind) if kind in ("function", "custom") else None
    if defined is None:
        raise no_place(fields.at, target, f"tools of type {kind!r} are not translated")
    tool = Tool(
        name=defined.text("name") or "",
        description=defined.text("description"),
        schema=defined.raw("parameters") if kind == "function" else None,
        strict=defined.flag("strict") if kind == "function" else None,
        custom=kind == "custom",
        grammar=grammar(defined, target) if kind == "custom" else None,
        at=fields.at,
    )
    defined.refuse_rest(target)
    fields.refuse_rest(target)
    return tool


def grammar(defined: Fields, target: FormatName) -> Raw | None:
    """A custom tool's `format`, as Responses has it: Chat Completions wraps the grammar once more."""
    given = defined.child("format")
    if given is None:
        return None
    kind = given.text("type")
    inner = given.child("grammar") or given
    shape = {"type": kind} | {name: value for name in ("syntax", "definition") if (value := inner.text(name)) is not None}
    inner.refuse_rest(target)
    given.refuse_rest(target)
    return Raw(msgspec.json.encode(shape))


def _tool_choice(fields: Fields, target: FormatName) -> tuple[ToolChoice | None, set[str] | None]:
    """The choice, and the only tools that it allows, if it does."""
    raw = fields.raw("tool_choice")
    if raw is None:
        return None, None
    if bytes(raw).startswith(b'"'):
        return named(checked(_text, raw, "tool_choice"), "tool_choice"), None
    choice = Fields.of(raw, "tool_choice")
    kind = choice.text("type") or "function"
    if kind == "allowed_tools":
        return _allowed(choice.child("allowed_tools") or Fields({}), target)
    inner = choice.child(kind) if kind in ("function", "custom") else None
    if inner is None:
        raise no_place("tool_choice", target, f"choices of type {kind!r} are not translated")
    chosen = ToolChoice("named", inner.text("name") or "", kind == "custom")
    inner.refuse_rest(target)
    choice.refuse_rest(target)
    return chosen, None


def _allowed(fields: Fields, target: FormatName) -> tuple[ToolChoice, set[str]]:
    only: set[str] = set()
    for raw, at in fields.each("tools"):
        tool = Fields.of(raw, at)
        inner = tool.child(tool.text("type") or "function") or Fields({})
        only.add(inner.text("name") or "")
        tool.refuse_rest(target)
    mode = fields.text("mode") or "auto"
    fields.refuse_rest(target)
    return named(mode, fields.path("mode")), only


def _format(fields: Fields, target: FormatName) -> OutputFormat | None:
    given = fields.child("response_format")
    if given is None:
        return None
    kind = given.text("type")
    schema = given.child("json_schema") or Fields({}, given.path("json_schema"))
    given.refuse_rest(target)
    return output_format(kind, schema, given.at, target)


def output_format(kind: str | None, fields: Fields, at: str, target: FormatName) -> OutputFormat | None:
    """fields: name, schema, description and strict, which both of OpenAI's formats have."""
    if kind in ("text", None):
        return None
    if kind == "json_object" and target != "anthropic-messages":
        return OutputFormat(None)
    if kind != "json_schema":
        raise no_place(at, target, f"there is no {kind} without a schema" if kind == "json_object" else f"there is no {kind}")
    read = OutputFormat(
        fields.raw("schema") or Raw(b'{"type":"object"}'), fields.text("name") or "", fields.text("description"), fields.flag("strict")
    )
    fields.refuse_rest(target)
    return read
