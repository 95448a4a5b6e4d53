"""One step of an agent."""

from struct import Struct as Layout
from typing import Literal

from msgspec import Struct

from holdfast.wire.canonical import canonical_json

_SIZE = 8
_pack = Layout("<q").pack
_LONGEST_NAME = 64
_LONGEST_ID = 128

StepKind = Literal["user", "text", "call", "result"]


class Step(Struct, frozen=True, gc=False):
    """user: somebody said something. text: the model did. call: it called a tool. result: what the tool gave back.

    key: equal for steps that mean the same (the words, the tool with its arguments, the result), in this process only. id: which call
    it is, or is the result of, at most 128 characters; "" where nothing says so. name: of the tool, at most 64.
    """

    kind: StepKind
    key: bytes
    id: str = ""
    name: str = ""


def called(name: str, arguments: str | bytes, call_id: str) -> Step:
    """arguments: JSON, however it is written."""
    canonical = canonical_json(arguments) if arguments else b"{}"
    return Step("call", _pack(hash((name, canonical))), call_id[:_LONGEST_ID], name[:_LONGEST_NAME])


def said(kind: StepKind, digest: bytes, call_id: str = "", name: str = "") -> Step:
    """digest: of the turn, or of the part of it that was said."""
    return Step(kind, digest[:_SIZE], call_id[:_LONGEST_ID], name[:_LONGEST_NAME])
