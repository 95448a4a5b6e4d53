"""Reads a Responses request, for a target of another format."""

from typing import cast

import msgspec

from holdfast.wire.request_body import checked
from holdfast.wire.translation import media
from holdfast.wire.translation.chat_reader import effort, grammar, output_format
from holdfast.wire.translation.fields import Fields, elements, no_place, output_bound
from holdfast.wire.translation.neutral import (
    Call,
    Document,
    Effort,
    FormatName,
    Image,
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
from holdfast.wire.translation.responses_fields import IN_TOOLS, TO_ANTHROPIC, TO_CHAT
from holdfast.wire.translation.tools import allowed, named

_SHARED = ("metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation")
_ROLES = ("system", "developer", "user", "assistant")
_TEXTS = ("input_text", "output_text", "text")

_text = msgspec.json.Decoder(str).decode


def read_request(body: bytes, target: FormatName) -> Request:
    fields = Fields.of_body(body)
    fields.apply(TO_ANTHROPIC if target == "anthropic-messages" else TO_CHAT, target)
    _includes(fields, target)
    options = fields.child("stream_options")
    if options is not None:
        options.leave("include_obfuscation")  # it only pads what is sent
        options.refuse_rest(target)
    choice, only = _tool_choice(fields, target)
    tools = allowed([_tool(Fields.of(raw, at), target) for raw, at in fields.each("tools")], only)
    wanted, verbosity = _text_options(fields, target)
    how_much, show = _reasoning(fields, target)
    user, safety = fields.text("user"), fields.text("safety_identifier")
    instructions = fields.text("instructions")
    return Request(
        model=fields.text("model") or "",
        system=(instructions,) if instructions else (),
        messages=_input(fields, target),
        tools=tools,
        choice=choice,
        parallel=fields.flag("parallel_tool_calls"),
        format=wanted,
        effort=how_much,
        show_reasoning=show,
        max_output=output_bound(fields.integer("max_output_tokens"), "max_output_tokens", target),
        temperature=fields.number("temperature"),
        top_p=fields.number("top_p"),
        verbosity=verbosity,
        user=user or safety or "",
        stream=bool(fields.flag("stream")),
        shared={name: raw for name in _SHARED if (raw := fields.raw(name)) is not None},
    )


def _includes(fields: Fields, target: FormatName) -> None:
    """What is to be in the answer beside it: of tools that OpenAI runs, and sealed thoughts, there is nothing."""
    for index, name in enumerate(fields.names("include")):
        if name == "message.output_text.logprobs":
            raise no_place(f"include[{index}]", target, "log-probabilities are not translated")


def _input(fields: Fields, target: FormatName) -> list[Message]:
    raw = fields.raw("input")
    if raw is None:
        return []
    if bytes(raw).startswith(b'"'):
        return [Message("user", (Text(checked(_text, raw, "input")),), "input")]
    messages: list[Message] = []
    for element, at in elements(raw, "input"):
        message = _item(Fields.of(element, at), target)
        if message is None:
            continue
        if messages and messages[-1].role == message.role == "assistant" and _is_one_turn(message):
            messages[-1] = Message("assistant", (*messages[-1].parts, *message.parts), messages[-1].at)
        else:
            messages.append(message)
    return messages


def _is_one_turn(message: Message) -> bool:
    """Calls belong to what the assistant said just before; a new text is a new message."""
    return all(isinstance(part, Call) for part in message.parts)


def _item(fields: Fields, target: FormatName) -> Message | None:
    """None for thoughts: they are sealed for the model that had them, and no history of another."""
    kind = fields.text("type") or ("message" if "role" in fields else "item_reference")
    at = fields.at
    match kind:
        case "reasoning":
            return None
        case "message":
            message = _message(fields, target)
        case "function_call" | "custom_tool_call":
            message = Message("assistant", (_call(fields, kind == "custom_tool_call", target),), at)
        case "function_call_output" | "custom_tool_call_output":
            message = Message("user", (_result(fields, kind == "custom_tool_call_output", target),), at)
        case "item_reference":
            raise no_place(at, target, "the item lies at OpenAI")
        case _:
            raise no_place(at, target, f"items of type {kind!r} are not translated")
    fields.leave("id", "status", "phase")  # OpenAI's labels of an item
    fields.refuse_rest(target)
    return message


def _message(fields: Fields, target: FormatName) -> Message:
    role = fields.text("role") or ""
    if role not in _ROLES:
        raise no_place(fields.path("role"), target, f"there is no role {role!r}")
    return Message(cast(Role, role), tuple(_content(fields, "content", target)), fields.at)


def _content(fields: Fields, name: str, target: FormatName) -> list[Part]:
    content = fields.texts_or_parts(name)
    if isinstance(content, str):
        return [Text(content)] if content else []
    return [_part(part, target) for part in content]


def _part(fields: Fields, target: FormatName) -> Part:
    fields.leave("prompt_cache_breakpoint")
    kind = fields.text("type") or ""
    if "file_id" in fields:
        raise no_place(fields.path("file_id"), target, "the file lies at OpenAI")
    part: Part
    if kind in _TEXTS:
        fields.leave("annotations", "logprobs")  # what was shown beside an answer: no model reads it
        part = Text(fields.text("text") or "")
    elif kind == "refusal":
        part = Refused(fields.text("refusal") or "")
    elif kind == "input_image":
        part = media.image(fields.text("image_url") or "", fields.text("detail") or "", fields.at)
    elif kind == "input_file":
        fields.leave("detail")  # how finely pages are drawn
        part = media.document(fields.text("file_data") or "", fields.text("file_url") or "", fields.text("filename") or "", fields.at)
    else:
        raise no_place(fields.at, target, f"content of type {kind!r} is not translated")
    fields.refuse_rest(target)
    return part


def _call(fields: Fields, custom: bool, target: FormatName) -> Call:
    _direct(fields, target)
    name, call_id = fields.text("name") or "", fields.text("call_id") or ""
    return Call(call_id, name, fields.text("input" if custom else "arguments") or "", custom, fields.at)


def _result(fields: Fields, custom: bool, target: FormatName) -> Result:
    _direct(fields, target)
    fields.leave("name")  # the call that the id names has it too
    parts: list[Text | Image | Document] = []
    for part in _content(fields, "output", target):
        if not isinstance(part, Text | Image | Document):
            raise no_place(fields.path("output"), target, "a result has text, images and documents")
        parts.append(part)
    return Result(fields.text("call_id") or "", tuple(parts), custom=custom, at=fields.at)


def _direct(fields: Fields, target: FormatName) -> None:
    caller = fields.child("caller")
    if caller is not None and caller.text("type") != "direct":
        raise no_place(fields.path("caller"), target, "the tool was called by code that OpenAI runs")
    if fields.flag("async"):
        raise no_place(fields.path("async"), target, "tools there are called one turn at a time")


def _tool(fields: Fields, target: FormatName) -> Tool:
    kind = fields.text("type") or ""
    if kind not in ("function", "custom"):
        raise no_place(fields.path("type"), target, f"the tool {kind} is described or run by OpenAI")
    fields.apply(IN_TOOLS, target)
    tool = Tool(
        name=fields.text("name") or "",
        description=fields.text("description"),
        schema=fields.raw("parameters"),
        strict=fields.flag("strict"),
        custom=kind == "custom",
        grammar=grammar(fields, target),
        at=fields.at,
    )
    fields.refuse_rest(target)
    return tool


def _tool_choice(fields: Fields, target: FormatName) -> tuple[ToolChoice | None, set[str] | None]:
    """The choice, and the only tools that it allows, if it does."""
    raw = fields.raw("tool_choice")
    if raw is None:
        return None, None
    if bytes(raw).startswith(b'"'):
        return named(checked(_text, raw, "tool_choice"), "tool_choice"), None
    choice = Fields.of(raw, "tool_choice")
    kind = choice.text("type") or ""
    only: set[str] | None = None
    if kind in ("function", "custom"):
        chosen = ToolChoice("named", choice.text("name") or "", kind == "custom")
    elif kind == "allowed_tools":
        only = set()
        for element, at in choice.each("tools"):
            tool = Fields.of(element, at)
            tool.leave("type")
            only.add(tool.text("name") or "")
            tool.refuse_rest(target)
        chosen = named(choice.text("mode") or "auto", choice.path("mode"))
    else:
        raise no_place("tool_choice", target, f"the tool {kind} is described or run by OpenAI")
    choice.refuse_rest(target)
    return chosen, only


def _text_options(fields: Fields, target: FormatName) -> tuple[OutputFormat | None, str]:
    text = fields.child("text")
    if text is None:
        return None, ""
    verbosity = text.text("verbosity") or ""
    if verbosity not in ("", "medium") and target == "anthropic-messages":
        raise no_place(text.path("verbosity"), target, "there is no such setting")
    given = text.child("format")
    text.refuse_rest(target)
    return (output_format(given.text("type"), given, given.at, target) if given is not None else None), verbosity


def _reasoning(fields: Fields, target: FormatName) -> tuple[Effort, bool]:
    """How much to think, and whether the caller asked to see it."""
    reasoning = fields.child("reasoning")
    if reasoning is None:
        return "", False
    how_much = effort(reasoning, "effort")
    summary = reasoning.text("summary") or reasoning.text("generate_summary")
    reasoning.leave("generate_summary")
    if (context := reasoning.text("context")) == "all_turns":
        raise no_place(reasoning.path("context"), target, f"thoughts of earlier turns are sealed: {context}")
    if (mode := reasoning.text("mode")) not in (None, "standard"):
        raise no_place(reasoning.path("mode"), target, f"there is no mode {mode!r}")
    reasoning.refuse_rest(target)
    return how_much, summary is not None
