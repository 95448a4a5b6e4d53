"""What a request asks for."""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Literal

import msgspec
from msgspec import Struct

Format = Literal["openai-chat", "openai-responses", "anthropic-messages"]

Part = tuple[Any, ...]
"""("text", words), ("refusal", words), ("image", url or data URL, detail), ("file", data URL or url, name), ("call", which, tool,
arguments), ("result", of which call, parts), ("reasoning", words), ("unknown", raw). Calls are counted, their ids do not matter."""

_SILENT = frozenset({"model", "stream", "stream_options", "store", "include"})
"""Named apart, or about the transport and not about the answer."""


class Asked(Struct, frozen=True, kw_only=True):
    """One request.

    system: everything that system and developer messages say before the first turn. turns: role and parts; neighbours of one role are
    one turn, results of tools are the user's. tools: name, description, schema, strict. choice: "auto", "required", "none" or a tool's
    name. parallel: several calls at once are welcome. max_output: bound of generated tokens. schema: of the answer; "json" for any
    object. thinks: reasoning is to be shown or has an effort. user: the end user. other: fields that stand for none of these.
    """

    model: str
    stream: bool = False
    system: str = ""
    turns: tuple[tuple[str, tuple[Part, ...]], ...] = ()
    tools: tuple[tuple[str, str, Any, bool], ...] = ()
    choice: str = "auto"
    parallel: bool = True
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stops: tuple[str, ...] = ()
    schema: Any = None
    thinks: bool = False
    user: str = ""
    verbosity: str = ""
    other: dict[str, Any] = {}


def asked(format: Format, body: bytes) -> Asked:
    """The meaning of a request's body."""
    fields = {name: value for name, value in msgspec.json.decode(body).items() if value is not None}
    model, stream = fields["model"], bool(fields.get("stream"))
    known = _READERS[format](fields)
    return Asked(
        model=model,
        stream=stream,
        temperature=fields.pop("temperature", None),
        top_p=fields.pop("top_p", None),
        other={name: value for name, value in fields.items() if name not in _SILENT},
        **known,
    )


class _Calls:
    """Numbers calls by the order in which their ids come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, identifier: object) -> int:
        return self._numbers.setdefault(str(identifier), len(self._numbers))


def _known(messages: Iterable[tuple[str, list[Part]]], instructions: Iterable[str] = ()) -> dict[str, Any]:
    """`system` and `turns` of messages; those of the system that come later stay where they are."""
    system = list(instructions)
    turns: list[tuple[str, list[Part]]] = []
    for role, parts in messages:
        if role == "system" and not turns:
            system += [part[1] for part in parts]
        else:
            turns.append((role, parts))
    merged = ((role, _said(part for _, parts in group for part in parts)) for role, group in groupby(turns, lambda turn: turn[0]))
    return {"system": "\n".join(system), "turns": tuple(merged)}


def _said(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Less what is empty: an empty text says as much as none."""
    return tuple(part for part in parts if part[1:] != ("",))


def _result(call: int, parts: list[Part]) -> Part:
    return "result", call, _said(parts)


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _role(role: str) -> str:
    return {"developer": "system", "tool": "user"}.get(role, role)


def _chat(fields: dict[str, Any]) -> dict[str, Any]:
    calls = _Calls()
    choice = fields.pop("tool_choice", "auto")
    wanted = fields.pop("response_format", {})
    effort = fields.pop("reasoning_effort", None)
    stop = fields.pop("stop", ())
    bounds = (fields.pop("max_completion_tokens", None), fields.pop("max_tokens", None))
    return {
        **_known(_chat_messages(fields.pop("messages"), calls)),
        "tools": tuple(_tool(tool.get("function") or tool) for tool in fields.pop("tools", ())),
        "choice": choice if isinstance(choice, str) else choice.get("function", choice)["name"],
        "verbosity": fields.pop("verbosity", ""),
        "parallel": fields.pop("parallel_tool_calls", True),
        "max_output": next((bound for bound in bounds if bound is not None), None),
        "stops": (stop,) if isinstance(stop, str) else tuple(stop),
        "schema": _chat_schema(wanted),
        "thinks": effort not in {None, "none"},
        "user": _user(fields),
    }


def _chat_messages(messages: list[Any], calls: _Calls) -> Iterator[tuple[str, list[Part]]]:
    for message in messages:
        parts = _chat_content(message.get("content"))
        if message["role"] == "tool":
            parts = [_result(calls.number(message["tool_call_id"]), parts)]
        if said := message.get("reasoning_content"):
            parts.insert(0, ("reasoning", said))
        if refusal := message.get("refusal"):
            parts.append(("refusal", refusal))
        for call in message.get("tool_calls") or ():
            used = call["function"]
            parts.append(("call", calls.number(call["id"]), used["name"], _arguments(used["arguments"])))
        yield _role(message["role"]), parts


def _chat_content(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [("text", content)]
    return [_chat_part(part) for part in content or ()]


def _chat_part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "text" | "refusal" as kind:
            return kind, part[kind]
        case "image_url":
            return "image", part["image_url"]["url"], part["image_url"].get("detail", "auto")
        case "file" if "file_data" in part["file"]:
            return "file", part["file"]["file_data"], part["file"].get("filename", "")
        case _:
            return "unknown", msgspec.json.encode(part)


def _chat_schema(wanted: dict[str, Any]) -> Any:
    match wanted.get("type", "text"):
        case "json_schema":
            return wanted["json_schema"].get("schema")
        case "json_object":
            return "json"
        case _:
            return None


def _tool(tool: dict[str, Any]) -> tuple[str, str, Any, bool]:
    schema = tool.get("parameters", tool.get("input_schema"))
    return tool["name"], tool.get("description") or "", schema, bool(tool.get("strict"))


def _user(fields: dict[str, Any]) -> str:
    named = (fields.pop("safety_identifier", ""), fields.pop("user", ""))
    return next((name for name in named if name), "")


def _responses(fields: dict[str, Any]) -> dict[str, Any]:
    given, calls = fields.pop("input"), _Calls()
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    choice = fields.pop("tool_choice", "auto")
    spoken = fields.pop("text", {})
    wanted = spoken.get("format") or {}
    reasoning = fields.pop("reasoning", None) or {}
    return {
        **_known((_responses_item(item, calls) for item in items), [fields.pop("instructions")] if "instructions" in fields else ()),
        "tools": tuple(_tool(tool) for tool in fields.pop("tools", ())),
        "choice": choice if isinstance(choice, str) else choice["name"],
        "verbosity": spoken.get("verbosity", ""),
        "parallel": fields.pop("parallel_tool_calls", True),
        "max_output": fields.pop("max_output_tokens", None),
        "schema": {"json_schema": wanted.get("schema"), "json_object": "json"}.get(wanted.get("type", "text")),
        "thinks": bool(reasoning.get("effort") not in {None, "none"} or reasoning.get("summary")),
        "user": _user(fields),
    }


def _responses_item(item: dict[str, Any], calls: _Calls) -> tuple[str, list[Part]]:
    match item.get("type", "message"):
        case "message":
            return _role(item["role"]), _responses_content(item["content"])
        case "function_call":
            return "assistant", [("call", calls.number(item["call_id"]), item["name"], _arguments(item["arguments"]))]
        case "function_call_output":
            return "user", [_result(calls.number(item["call_id"]), _responses_content(item["output"]))]
        case "reasoning":
            return "assistant", [("reasoning", part["text"]) for part in (*item["summary"], *(item.get("content") or ()))]
        case _:
            return "unknown", [("unknown", msgspec.json.encode(item))]


def _responses_content(content: Any) -> list[Part]:
    if isinstance(content, str):
        return [("text", content)]
    return [_responses_part(part) for part in content or ()]


def _responses_part(part: dict[str, Any]) -> Part:
    match part["type"]:
        case "input_text" | "output_text":
            return "text", part["text"]
        case "refusal":
            return "refusal", part["refusal"]
        case "input_image" if part.get("image_url"):
            return "image", part["image_url"], part.get("detail") or "auto"
        case "input_file" if part.get("file_data") or part.get("file_url"):
            return "file", part.get("file_data") or part["file_url"], part.get("filename", "")
        case _:
            return "unknown", msgspec.json.encode(part)


def _messages(fields: dict[str, Any]) -> dict[str, Any]:
    calls = _Calls()
    system = fields.pop("system", ())
    choice = fields.pop("tool_choice", {"type": "auto"})
    wanted = fields.pop("output_config", {})
    thinking = fields.pop("thinking", {"type": "disabled"})
    answer = wanted.get("format") or fields.pop("output_format", None) or {}
    return {
        **_known(
            ((_role(message["role"]), _blocks(message["content"], calls)) for message in fields.pop("messages")),
            [system] if isinstance(system, str) else [block["text"] for block in system],
        ),
        "tools": tuple(_tool(tool) for tool in fields.pop("tools", ())),
        "choice": choice["name"] if choice["type"] == "tool" else {"any": "required"}.get(choice["type"], choice["type"]),
        "parallel": not choice.get("disable_parallel_tool_use"),
        "max_output": fields.pop("max_tokens"),
        "stops": tuple(fields.pop("stop_sequences", ())),
        "schema": answer.get("schema"),
        "thinks": thinking["type"] != "disabled" or bool(wanted.get("effort")),
        "user": fields.pop("metadata", {}).get("user_id", ""),
    }


def _blocks(content: Any, calls: _Calls) -> list[Part]:
    if isinstance(content, str):
        return [("text", content)]
    return [_block(block, calls) for block in content or ()]


def _block(block: dict[str, Any], calls: _Calls) -> Part:
    match block["type"]:
        case "text":
            return "text", block["text"]
        case "image":
            return "image", _source(block["source"]), "auto"
        case "document":
            return "file", _source(block["source"]), block.get("title") or ""
        case "thinking":
            return "reasoning", block["thinking"]
        case "tool_use":
            return "call", calls.number(block["id"]), block["name"], block["input"]
        case "tool_result":
            return _result(calls.number(block["tool_use_id"]), _blocks(block.get("content"), calls))
        case _:
            return "unknown", msgspec.json.encode(block)


def _source(source: dict[str, Any]) -> str:
    if source["type"] == "base64":
        return f"data:{source['media_type']};base64,{source['data']}"
    return str(source.get("url") or source.get("data") or source)


_READERS: dict[Format, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "openai-chat": _chat,
    "openai-responses": _responses,
    "anthropic-messages": _messages,
}
