"""Reads an Anthropic Messages request, for a target of another format."""

from base64 import b64encode
from typing import cast

from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire.translation.anthropic_fields import IN_TOOLS, TO_CHAT, TO_RESPONSES
from holdfast.wire.translation.fields import Fields, no_place, output_bound
from holdfast.wire.translation.neutral import (
    EFFORTS,
    Call,
    Document,
    Effort,
    FormatName,
    Image,
    Message,
    OutputFormat,
    Part,
    Request,
    Result,
    Role,
    Text,
    Tool,
    ToolChoice,
)
from holdfast.wire.translation.tools import is_strict, named

_ROLES = ("user", "assistant", "system")
_THOUGHTS = ("thinking", "redacted_thinking")
_LOW, _MEDIUM = 4_096, 16_384
"""Tokens of thinking up to which the effort counts as low and as medium; more is high."""


def read_request(body: bytes, target: FormatName) -> Request:
    fields = Fields.of_body(body)
    fields.apply(TO_CHAT if target == "openai-chat" else TO_RESPONSES, target)
    messages = [_message(Fields.of(raw, at), target) for raw, at in fields.each("messages")]
    if messages and messages[-1].role == "assistant":
        raise no_place(messages[-1].at, target, "a model there begins a message of its own; it does not go on with one (prefill)")
    choice, parallel = _tool_choice(fields, target)
    effort, wanted = _output_config(fields, target)
    thinking, budget_effort, show = _thinking(fields, target)
    return Request(
        model=fields.text("model") or "",
        system=_system(fields, target),
        messages=messages,
        tools=[_tool(Fields.of(raw, at), target) for raw, at in fields.each("tools")],
        choice=choice,
        parallel=parallel,
        format=wanted,
        effort=effort or budget_effort,
        thinking=thinking,
        show_reasoning=show,
        max_output=output_bound(fields.integer("max_tokens"), "max_tokens", target),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        stop=tuple(fields.names("stop_sequences")),
        user=_user(fields, target),
        stream=bool(fields.flag("stream")),
    )


def _user(fields: Fields, target: FormatName) -> str:
    metadata = fields.child("metadata")
    if metadata is None:
        return ""
    user = metadata.text("user_id") or ""
    metadata.refuse_rest(target)
    return user


def _system(fields: Fields, target: FormatName) -> tuple[str, ...]:
    content = fields.texts_or_parts("system")
    if isinstance(content, str):
        return (content,) if content else ()
    return tuple(part.text for block in content if isinstance(part := _block(block, target), Text))


def _message(fields: Fields, target: FormatName) -> Message:
    role = fields.text("role") or ""
    if role not in _ROLES:
        raise no_place(fields.path("role"), target, f"there is no role {role!r}")
    content = fields.texts_or_parts("content")
    fields.refuse_rest(target)
    if isinstance(content, str):
        return Message(cast(Role, role), (Text(content),), fields.at)
    parts = [part for block in content if (part := _block(block, target)) is not None]
    return Message(cast(Role, role), tuple(parts), fields.at)


def _block(fields: Fields, target: FormatName) -> Part | None:
    """None for thoughts: they are signed for the model that had them, and no history of another."""
    kind = fields.text("type") or ""
    if kind in _THOUGHTS:
        return None
    fields.leave("cache_control")
    part: Part
    match kind:
        case "text":
            fields.leave("citations")  # sources of what was said: no model reads them
            part = Text(fields.text("text") or "")
        case "image":
            fields.leave("transformations")  # whether Anthropic scales a picture that is too large for it
            part = _image(fields, target)
        case "document":
            part = _document(fields, target)
        case "tool_use":
            part = _call(fields, target)
        case "tool_result":
            part = _result(fields, target)
        case _:
            raise no_place(fields.at, target, f"content of type {kind!r} is not translated")
    fields.refuse_rest(target)
    return part


def _image(fields: Fields, target: FormatName) -> Image:
    source = fields.child("source") or Fields({})
    kind = source.text("type")
    match kind:
        case "base64":
            image = Image(fields.at, "", source.text("media_type") or "", source.text("data") or "")
        case "url":
            image = Image(fields.at, source.text("url") or "")
        case _:
            raise no_place(fields.path("source"), target, f"images of type {kind!r} are not translated")
    source.refuse_rest(target)
    return image


def _document(fields: Fields, target: FormatName) -> Document | Text:
    citations = fields.child("citations")
    if citations is not None and citations.flag("enabled"):
        raise no_place(fields.path("citations"), target, "citations are not translated")
    name = fields.text("title") or ""
    source = fields.child("source") or Fields({})
    kind = source.text("type")
    document: Document | Text
    match kind:
        case "base64":
            document = Document(fields.at, "", source.text("media_type") or "", source.text("data") or "", name)
        case "url":
            document = Document(fields.at, source.text("url") or "", name=name)
        case "text":
            source.leave("media_type")
            document = _text_document(source.text("data") or "", name, fields.at, target)
        case _:
            raise no_place(fields.path("source"), target, f"documents of type {kind!r} are not translated")
    source.refuse_rest(target)
    return document


def _text_document(text: str, name: str, at: str, target: FormatName) -> Document | Text:
    """Chat Completions takes files of type PDF alone: there, a document that is text is text."""
    if target == "openai-chat":
        return Text(f"{name}\n\n{text}" if name else text)
    return Document(at, "", "text/plain", b64encode(text.encode("utf-8", "surrogatepass")).decode(), name or "document.txt")


def _call(fields: Fields, target: FormatName) -> Call:
    caller = fields.child("caller")
    if caller is not None and caller.text("type") != "direct":
        raise no_place(fields.path("caller"), target, "the tool was called by code that Anthropic runs")
    if "toolset_name" in fields:
        raise no_place(fields.path("toolset_name"), target, "the tool is described by Anthropic")
    arguments = fields.raw("input") or Raw(b"{}")
    return Call(fields.text("id") or "", fields.text("name") or "", bytes(arguments).decode(), at=fields.at)


def _result(fields: Fields, target: FormatName) -> Result:
    content = fields.texts_or_parts("content")
    parts: list[Text | Image | Document] = []
    if isinstance(content, str):
        parts = [Text(content)] if content else []
    else:
        for block in content:
            part = _block(block, target)
            if not isinstance(part, Text | Image | Document):
                raise no_place(block.at, target, "a result has text, images and documents")
            parts.append(part)
    return Result(fields.text("tool_use_id") or "", tuple(parts), bool(fields.flag("is_error")), at=fields.at)


def _tool(fields: Fields, target: FormatName) -> Tool:
    kind = fields.text("type") or "custom"
    if kind != "custom":
        raise no_place(fields.path("type"), target, f"the tool {kind} is described or run by Anthropic")
    fields.apply(IN_TOOLS, target)
    return Tool(fields.text("name") or "", fields.text("description"), fields.raw("input_schema"), fields.flag("strict"), at=fields.at)


def _tool_choice(fields: Fields, target: FormatName) -> tuple[ToolChoice | None, bool | None]:
    """The choice, and whether tools may be called in parallel, where it says so."""
    choice = fields.child("tool_choice")
    if choice is None:
        return None, None
    kind = choice.text("type") or ""
    disabled = choice.flag("disable_parallel_tool_use")
    parallel = None if disabled is None else not disabled
    if kind == "tool":
        chosen = ToolChoice("named", choice.text("name") or "")
    else:
        chosen = named("required" if kind == "any" else kind, choice.path("type"))
    choice.refuse_rest(target)
    return chosen, parallel


def _output_config(fields: Fields, target: FormatName) -> tuple[Effort, OutputFormat | None]:
    config = fields.child("output_config")
    if config is None:
        return "", None
    effort = config.text("effort") or ""
    if effort and effort not in EFFORTS:
        raise MalformedRequest(f"{config.path('effort')} is {effort!r}; it can be low, medium, high, xhigh or max.", config.path("effort"))
    wanted = config.child("format")
    config.refuse_rest(target)
    if wanted is None:
        return effort, None
    if (kind := wanted.text("type")) != "json_schema":
        raise no_place(wanted.at, target, f"output of type {kind!r} is not translated")
    schema = wanted.raw("schema") or Raw(b'{"type":"object"}')
    wanted.refuse_rest(target)
    return effort, OutputFormat(schema, strict=is_strict(schema))


def _thinking(fields: Fields, target: FormatName) -> tuple[bool, Effort, bool]:
    """Whether to think, how much, and whether the caller asked to see it. Without thinking the target's own default stands: few of
    OpenAI's models can be told not to think, and those that can do not unasked."""
    thinking = fields.child("thinking")
    if thinking is None:
        return False, "", False
    kind = thinking.text("type") or ""
    budget = thinking.integer("budget_tokens")
    show = thinking.text("display") == "summarized"
    thinking.refuse_rest(target)
    if kind not in ("enabled", "adaptive", "disabled"):
        raise no_place(thinking.path("type"), target, f"thinking of type {kind!r} is not translated")
    if kind == "disabled" or budget is None:
        return kind != "disabled", "", show
    return True, "low" if budget <= _LOW else "medium" if budget <= _MEDIUM else "high", show
