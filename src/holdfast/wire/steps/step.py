"""One step of an agent."""

from hashlib import sha256
from typing import Literal

from msgspec import Struct

from holdfast.wire.canonical import canonical_json

_SIZE = 8
_LONGEST_NAME = 64

StepKind = Literal["user", "text", "call", "result"]


class Step(Struct, frozen=True, gc=False):
    """user: somebody said something. text: the model did. call: it called a tool. result: what the tool gave back.

    key: equal for steps that mean the same: the words, the tool with its arguments, the result. id: which call it is, or is the result
    of; "" where nothing says so. name: of the tool, at most 64 characters.
    """

    kind: StepKind
    key: bytes
    id: str = ""
    name: str = ""


def call_key(name: str, arguments: str | bytes) -> bytes:
    """What a call of a tool with JSON arguments is known by; however they are written."""
    canonical = canonical_json(arguments) if arguments else b"{}"
    return sha256(f"{len(name)}:{name}".encode("utf-8", "surrogatepass") + canonical).digest()[:_SIZE]


def called(name: str, arguments: str | bytes, call_id: str) -> Step:
    return Step("call", call_key(name, arguments), call_id, name[:_LONGEST_NAME])


def said(kind: StepKind, digest: bytes, call_id: str = "", name: str = "") -> Step:
    """digest: of the turn, or of the part of it that was said."""
    return Step(kind, digest[:_SIZE], call_id, name)


def said_text(text: str) -> Step:
    """The model's words, ends trimmed."""
    return Step("text", sha256(text.strip().encode("utf-8", "surrogatepass")).digest()[:_SIZE])
