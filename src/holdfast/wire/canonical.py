"""Digests that are equal for messages that mean the same, however an agent's framework wrote them down.

Frameworks rewrite history: content strings become lists of text parts, arguments are parsed and dumped again, cache markers wander,
absent fields become null. What counts here is who spoke, the text, the tool calls with their arguments, and the media.
"""

from collections.abc import Callable, Iterable
from hashlib import blake2b

import msgspec

from holdfast.wire.call import Turn

_sorted = msgspec.json.Encoder(order="sorted")


def canonical_json(text: str | bytes) -> bytes:
    """JSON with sorted keys and no white space; what is not JSON stays as it is."""
    try:
        return _sorted.encode(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def turn(role: str, texts: Iterable[str] = (), calls: Iterable[tuple[str, str | bytes]] = (), media: Iterable[bytes] = ()) -> Turn:
    """The turn of one message: its texts in order, its tool calls as (name, JSON arguments), its media as raw references.

    Texts are joined and stripped: providers and frameworks trim the ends and split them at will. Reasoning is left out: some
    agents send it back, some do not.
    """
    hasher = blake2b(role.encode(), digest_size=16)
    _field(hasher.update, b"t", "".join(texts).strip().encode("utf-8", "surrogatepass"))
    for name, arguments in calls:
        _field(hasher.update, b"c", name.encode("utf-8", "surrogatepass"))
        _field(hasher.update, b"a", canonical_json(arguments))
    for reference in media:
        _field(hasher.update, b"m", reference)
    return Turn(role, hasher.digest())


def _field(update: Callable[[bytes], None], kind: bytes, value: bytes) -> None:
    update(kind + len(value).to_bytes(8, "big"))
    update(value)
