"""What Holdfast records: one file per event kind, one line of the journal per event.

Inside, instants are integer nanoseconds since the epoch and money is integer nano-dollars; `decode` reads any line that `encode` wrote.
Fields carry the names of the deployment checklist. Unknown fields of newer versions are ignored on reading.
"""

from msgspec import MsgspecError
from msgspec.json import Decoder, Encoder

from holdfast.events.api_call import ApiCall
from holdfast.events.breaker import BreakerChanged
from holdfast.events.context import Context
from holdfast.events.decision import Decision
from holdfast.events.error import Error
from holdfast.events.interaction import InteractionStarted
from holdfast.events.kill import KillChanged
from holdfast.events.limit import LimitForecast, LimitMark, LimitRefusal
from holdfast.events.run import RunEnded, RunStarted
from holdfast.events.sanitised import sanitised, valid_utf8

Event = (
    ApiCall
    | BreakerChanged
    | Context
    | Decision
    | Error
    | InteractionStarted
    | KillChanged
    | LimitForecast
    | LimitMark
    | LimitRefusal
    | RunEnded
    | RunStarted
)

_encode = Encoder().encode
_decoder: Decoder[Event] = Decoder(Event)


def encode_into(event: Event, buffer: bytearray) -> None:
    """Append the event as exactly one line of NDJSON in valid UTF-8, newline included; no text makes it fail.

    Lone surrogates and invalid UTF-8 become U+FFFD; line breaks between the tokens of raw parts become spaces. Raw parts are JSON.
    """
    try:
        line = _encode(event)
    except UnicodeEncodeError:
        line = _encode(sanitised(event))
    if not line.isascii():
        line = valid_utf8(line)
    if b"\n" in line:
        line = line.replace(b"\n", b" ")
    buffer += line
    buffer += b"\n"


UNREADABLE = (MsgspecError, UnicodeDecodeError, RecursionError)
"""What `decode` raises: not JSON or not an event, not UTF-8, nested beyond reason."""


def decode(line: bytes | memoryview) -> Event:
    """The event of one line; raises one of `UNREADABLE` for anything else."""
    return _decoder.decode(line)


__all__ = [
    "UNREADABLE",
    "ApiCall",
    "BreakerChanged",
    "Context",
    "Decision",
    "Error",
    "Event",
    "InteractionStarted",
    "KillChanged",
    "LimitForecast",
    "LimitMark",
    "LimitRefusal",
    "RunEnded",
    "RunStarted",
    "decode",
    "encode_into",
]
