"""Digests that are equal for messages that mean the same, however an agent's framework wrote them down.

Frameworks rewrite history: content strings become lists of text parts, arguments are parsed and dumped again, cache markers wander,
absent fields become null. What counts here is who spoke, the text, the tool calls with their arguments, and the media.
"""

from collections.abc import Iterable
from hashlib import sha256
from math import isinf

import msgspec

from holdfast.wire.call import Turn

_DIGEST_SIZE = 16


def _number(text: str) -> int | float:
    """JavaScript writes 1.0 as 1: an integral float is the integer."""
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text} is out of range")
    return int(value) if value.is_integer() else value


_decode = msgspec.json.Decoder(float_hook=_number).decode
_sorted = msgspec.json.Encoder(order="sorted").encode


def canonical_json(text: str | bytes) -> bytes:
    """JSON with sorted keys, no white space and integral floats as integers; what is not JSON stays as it is."""
    try:
        return _sorted(_decode(text))
    except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError):
        return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)


def plain_turn(role: str, text: str) -> Turn:
    """What `turn` makes of one text and nothing else, as most messages are."""
    text = text.strip()
    return Turn(role, sha256(f"{len(role)}:{role}{len(text)}:{text}".encode("utf-8", "surrogatepass")).digest()[:_DIGEST_SIZE])


def turn(role: str, texts: Iterable[str] = (), calls: Iterable[tuple[str, str | bytes]] = (), media: Iterable[bytes] = ()) -> Turn:
    """The turn of one message: its texts in order, its tool calls as (name, JSON arguments), its media as raw references.

    Texts are joined and stripped: providers and frameworks trim the ends and split them at will. Empty arguments are `{}`. Reasoning
    is left out: some agents send it back, some do not. The digest is SHA-256 cut to 16 bytes over length-prefixed fields (twice as
    fast as BLAKE2b on long texts where the processor has SHA instructions, equal elsewhere on short ones).
    """
    text = "".join(texts).strip()
    fields = f"{len(role)}:{role}{len(text)}:{text}".encode("utf-8", "surrogatepass")
    for name, arguments in calls:
        canonical = canonical_json(arguments) if arguments else b"{}"
        fields += f"c{len(name)}:{name}{len(canonical)}:".encode("utf-8", "surrogatepass") + canonical
    for reference in media:
        fields += b"m%d:%b" % (len(reference), reference)
    return Turn(role, sha256(fields).digest()[:_DIGEST_SIZE])
