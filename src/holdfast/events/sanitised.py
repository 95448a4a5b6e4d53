"""Text that cannot be written as UTF-8 is repaired, so that no event is lost for a broken character in it."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

_Event = TypeVar("_Event", bound=Struct)


def sanitised(event: _Event) -> _Event:
    """The event with surrogate pairs joined and lone surrogates as U+FFFD, in every text field."""
    repaired = {name: _repair(value) for name, value in msgspec.structs.asdict(event).items()}
    return msgspec.structs.replace(event, **repaired)


def valid_utf8(line: bytes) -> bytes:
    """The line itself when it is UTF-8, else with every invalid sequence as U+FFFD; raw parts of requests may be anything."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("utf-8", "replace").encode()
    return line


def _repair(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, tuple):
        return tuple(_repair(part) for part in value)
    return value
