"""Tools and the choice between them, as far as the formats agree; the schemas of strict output."""

import re

import msgspec
from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire.translation.neutral import Tool, ToolChoice

INVALID_JSON = "INVALID_JSON"
"""The key under which Anthropic recommends to show a model its arguments that were no JSON object."""

_NO_ARGUMENTS = Raw(b'{"type":"object","properties":{}}')
_UNNAMED = re.compile(r"[^A-Za-z0-9_-]+")

_decode = msgspec.json.decode
_encode = msgspec.json.encode


def named(mode: str, at: str) -> ToolChoice:
    match mode:
        case "auto" | "none" | "required":
            return ToolChoice(mode)
        case _:
            raise MalformedRequest(f"{at} is {mode!r}; it can be auto, none, required or name a tool.", at)


def allowed(tools: list[Tool], only: set[str] | None) -> list[Tool]:
    """A choice that allows some of the tools is the same as offering no others."""
    return tools if only is None else [tool for tool in tools if tool.name in only]


def arguments_schema(tool: Tool) -> Raw:
    return tool.schema or _NO_ARGUMENTS


def arguments_object(arguments: str) -> Raw:
    """Arguments as an object; text that is none, as models write it at a bound of tokens, stands whole under INVALID_JSON."""
    if not arguments.strip():
        return Raw(b"{}")
    try:
        if isinstance(_decode(arguments), dict):
            return Raw(arguments.encode())
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    return Raw(_encode({INVALID_JSON: arguments}))


def schema_name(schema: Raw) -> str:
    """OpenAI wants a name for a schema: its title, or `answer`."""
    title = _decode(schema).get("title") if bytes(schema).startswith(b"{") else None
    return (_UNNAMED.sub("_", title)[:64] if isinstance(title, str) else "") or "answer"


def closed(schema: Raw) -> Raw:
    """The schema with `additionalProperties: false` wherever an object leaves it open, which Anthropic wants of schemas for output."""
    try:
        return Raw(_encode(_closed(_decode(schema))))
    except (msgspec.MsgspecError, RecursionError):
        return schema


def is_strict(schema: Raw) -> bool:
    """Whether OpenAI takes the schema as a strict one: every object closed, every property required."""
    try:
        return _is_strict(_decode(schema))
    except (msgspec.MsgspecError, RecursionError):
        return False


_LITERALS = frozenset({"enum", "const", "default", "examples"})
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions"})


def _closed(node: object) -> object:
    if isinstance(node, list):
        return [_closed(element) for element in node]
    if not isinstance(node, dict):
        return node
    done: dict[str, object] = {}
    for name, value in node.items():
        if name in _NAMED_SCHEMAS and isinstance(value, dict):
            done[name] = {key: _closed(schema) for key, schema in value.items()}
        else:
            done[name] = value if name in _LITERALS else _closed(value)
    if node.get("type") == "object":
        done.setdefault("additionalProperties", False)
    return done


def _is_strict(node: object) -> bool:
    if isinstance(node, list):
        return all(map(_is_strict, node))
    if not isinstance(node, dict):
        return True
    if node.get("type") == "object" and not _takes_all_and_no_more(node):
        return False
    schemas = [value for name, value in node.items() if name not in _LITERALS]
    return all(all(map(_is_strict, value.values())) if isinstance(value, dict) else _is_strict(value) for value in schemas)


def _takes_all_and_no_more(node: dict[str, object]) -> bool:
    required, properties = node.get("required"), node.get("properties")
    names = set(properties) if isinstance(properties, dict) else set()
    return node.get("additionalProperties") is False and names == set(required if isinstance(required, list) else ())
