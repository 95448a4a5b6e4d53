"""Request bodies as JSON objects: read at the top level, checked by type, changed without touching the rest. For any wire format."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec
from msgspec import Raw

from holdfast.errors import MalformedRequest

T = TypeVar("T")
Fields = dict[str, Raw]

NULL = Raw(b"null")

_fields_of = msgspec.json.Decoder(Fields).decode
_MISSING = re.compile(r"required field `([^`]+)`")
_PATH = re.compile(r" - at `(?:key in )?\$([^`]*)`")
_KEY = re.compile(rb'[\s,{]*"((?:[^"\\]|\\.)*)"\s*:\s*')


def one_line(body: bytes) -> bytes:
    """The same JSON without line breaks between its tokens, so that raw parts of it fit into a line of the record.

    What is not JSON comes back as it is; `read_fields` says what is wrong with it.
    """
    if b"\n" not in body:
        return body
    try:
        return msgspec.json.format(body, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return body


def read_fields(body: bytes) -> Fields:
    """The top-level fields as raw JSON; of a field that comes twice, the last, as providers do. Raises MalformedRequest."""
    if not body.isascii():
        try:
            str(body, "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"The request body is not UTF-8: byte {error.start} cannot be decoded.") from None
    return checked(_fields_of, body)


def checked(decode: Callable[[bytes | Raw], T], raw: bytes | Raw, at: str = "") -> T:
    """What a msgspec decoder reads; whatever is wrong becomes a MalformedRequest that names the field, `at` being where `raw` stands."""
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), at) from None
    except msgspec.DecodeError as error:
        raise MalformedRequest(f"The request body is not valid JSON: {error}.", at or None) from None
    except UnicodeDecodeError:
        raise MalformedRequest("The request body is not UTF-8.", at or None) from None
    except RecursionError:
        raise MalformedRequest("The request body is nested too deeply.", at or None) from None


_PLAIN = frozenset(
    {
        *("model", "messages", "stream", "tools", "tool_choice", "max_tokens", "max_completion_tokens", "max_output_tokens"),
        *("temperature", "top_p", "n", "stop", "stream_options", "user", "metadata", "store", "service_tier", "reasoning_effort"),
        *("parallel_tool_calls", "response_format", "input", "instructions", "reasoning", "text", "include", "prompt_cache_key"),
        *("system", "thinking", "stop_sequences", "top_k", "output_config", "context_management", "encoding_format", "dimensions"),
    }
)
"""Names that are what they look like: most bodies have no others, and need no closer look."""


def check_names(fields: Fields, guarded: frozenset[str]) -> None:
    """Raises MalformedRequest for a field that is one of `guarded` only where capitals, look-alike letters or underscores do not count.

    Some servers read names so (Go's and .NET's JSON, protobuf): what was checked here would not be what counts there.
    """
    if _PLAIN.issuperset(fields):
        return
    names = "".join(fields)
    if names.isascii() and names == names.lower():
        return
    squeezed = {_squeezed(name): name for name in guarded}
    for name in fields:
        meant = squeezed.get(_squeezed(name))
        if meant is not None and name != meant:
            raise MalformedRequest(f"Invalid request: some servers read the field {name[:64]!r} as {meant}; write it so.", meant)


def _squeezed(name: str) -> str:
    return name.casefold().replace("_", "")


def without(fields: Fields, names: Iterable[str]) -> Raw:
    """The fields as one JSON object, those named left out."""
    kept = dict(fields)
    for name in names:
        kept.pop(name, None)
    return Raw(msgspec.json.encode(kept))


def with_changes(body: bytes, changes: Callable[[Fields], Mapping[str, Raw]]) -> bytes:
    """The body with the fields that `changes` returns set; the very same object when it returns none.

    Fields keep their place and, byte for byte, their values; new ones come last. A body in which a top-level field comes twice is
    written anew with the last one only, changed or not, so that no server can read another value than the one that was checked.
    """
    fields = read_fields(body)
    changed = changes(fields)
    if not changed and not has_duplicates(body, fields):
        return body
    return msgspec.json.encode({**fields, **changed})


def has_duplicates(body: bytes, fields: Fields) -> bool:
    """Whether a top-level field of `body` comes twice; `fields` is what `read_fields` made of it."""
    compact = sum(map(len, fields)) + sum(map(len, fields.values())) + 4 * len(fields) + 1
    if len(body) == compact:
        return False  # no byte is left for a second value
    at = 0
    for raw in fields.values():
        key = _KEY.match(body, at)
        if key is None or not body.startswith(raw, key.end()):
            return True
        at = key.end() + len(raw)
    return body.find(b'"', at) >= 0


def _wrong_type(error: str, at: str) -> MalformedRequest:
    path = found.group(1) if (found := _PATH.search(error)) else ""
    if missing := _MISSING.search(error):
        path += f".{missing.group(1)}"
    param = f"{at}{path}".removeprefix(".").replace("[...]", "")
    reason = error[: found.start()] if found else error
    return MalformedRequest(f"Invalid request: {f'{param}: ' if param else ''}{reason}.", param or None)
