"""A value that satisfies a JSON Schema, always the same one, for tool arguments and structured output."""

from collections.abc import Callable
from typing import Any

import msgspec

_DEEP = 6
"""Levels after which lists stay empty and alternatives prefer null, so that recursive schemas end."""

_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "sim@example.com",
    "hostname": "sim.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/sim",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_DEEPEST = 12
"""Levels after which a schema that nothing finite satisfies is given up."""

Schema = dict[str, Any]


def sample_json(schema: object) -> str:
    """The sample as JSON text."""
    return msgspec.json.encode(sample(schema)).decode()


def sample(schema: object) -> object:
    """A value for the schema: required properties, first alternatives, smallest sizes; `pattern` is not looked at."""
    return _value(schema if isinstance(schema, dict) else {}, schema, "sample", 0)


def _value(root: Schema, schema: object, name: str, depth: int) -> object:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return name
    schema = _resolved(root, schema, depth)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    return _KINDS.get(_kind(schema), _any)(root, schema, name, depth)


def _resolved(root: Schema, schema: Schema, depth: int) -> Schema:
    """References followed, `allOf` merged, one alternative taken."""
    for _ in range(_DEEPEST):
        if isinstance(reference := schema.get("$ref"), str):
            schema = {**_target(root, reference), **_without(schema, "$ref")}
        elif parts := schema.get("allOf"):
            schema = _merged([_without(schema, "allOf"), *(_resolved(root, part, depth + 1) for part in parts if depth < _DEEPEST)])
        elif choices := schema.get("anyOf") or schema.get("oneOf"):
            schema = {**_without(schema, "anyOf", "oneOf"), **_alternative(choices, depth)}
        else:
            break
    return schema


def _target(root: Schema, reference: str) -> Schema:
    at: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        at = at.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(at, dict) else {}
    return at if isinstance(at, dict) else {}


def _without(schema: Schema, *keys: str) -> Schema:
    return {key: value for key, value in schema.items() if key not in keys}


def _merged(parts: list[Schema]) -> Schema:
    whole: Schema = {}
    for part in parts:
        properties = {**whole.get("properties", {}), **part.get("properties", {})}
        required = [*whole.get("required", []), *part.get("required", [])]
        whole = {**whole, **part}
        if properties:
            whole |= {"properties": properties, "required": required}
    return whole


def _alternative(choices: list[Schema], depth: int) -> Schema:
    if depth >= _DEEP:
        return next((choice for choice in choices if choice.get("type") == "null"), choices[-1])
    return choices[0]


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None and "properties" in schema:
        return "object"
    return kind if isinstance(kind, str) else ""


def _any(root: Schema, schema: Schema, name: str, depth: int) -> object:
    return name


def _object(root: Schema, schema: Schema, name: str, depth: int) -> object:
    properties = schema.get("properties", {})
    return {key: _value(root, properties.get(key), key, depth + 1) for key in schema.get("required", ())}


def _array(root: Schema, schema: Schema, name: str, depth: int) -> object:
    first = [_value(root, item, name, depth + 1) for item in schema.get("prefixItems", ())]
    size = max(schema.get("minItems", 0), len(first), 0 if depth >= _DEEP else 1)
    size = min(size, schema.get("maxItems", size))
    rest = range(size - len(first)) if schema.get("items") is not False else ()
    return first[:size] + [_value(root, schema.get("items"), name, depth + 1) for _ in rest]


def _string(root: Schema, schema: Schema, name: str, depth: int) -> object:
    text = _FORMATS.get(schema.get("format", ""), name)
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _integer(root: Schema, schema: Schema, name: str, depth: int) -> object:
    return _number(schema, 1)


def _real(root: Schema, schema: Schema, name: str, depth: int) -> object:
    return _number(schema, 0.5)


def _number(schema: Schema, margin: float) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + margin
    if "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - margin
    value: float = 1
    if low is not None:
        value = max(value, low)
    if high is not None:
        value = min(value, high)
    step = schema.get("multipleOf")
    return -(-value // step) * step if step else value


def _boolean(root: Schema, schema: Schema, name: str, depth: int) -> object:
    return True


def _null(root: Schema, schema: Schema, name: str, depth: int) -> object:
    return None


_KINDS: dict[str, Callable[[Schema, Schema, str, int], object]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _real,
    "boolean": _boolean,
    "null": _null,
}
