"""What Holdfast records: one file per event kind, one line of the journal per event.

Inside, instants are integer nanoseconds since the epoch and money is integer nano-dollars; `decode` reads any line that `encode` wrote.
Fields carry the names of the deployment checklist. Unknown fields of newer versions are ignored on reading.
"""

from msgspec.json import Decoder, Encoder

from holdfast.events.api_call import ApiCall
from holdfast.events.context import Context
from holdfast.events.decision import Decision
from holdfast.events.error import Error
from holdfast.events.interaction import InteractionStarted
from holdfast.events.limit import LimitMark, LimitRefusal
from holdfast.events.run import RunEnded, RunStarted

Event = ApiCall | Context | Decision | Error | InteractionStarted | LimitMark | LimitRefusal | RunEnded | RunStarted

_encoder = Encoder()
_decoder: Decoder[Event] = Decoder(Event)


def encode_into(event: Event, buffer: bytearray) -> None:
    """Append the event as one line of NDJSON, newline included."""
    _encoder.encode_into(event, buffer, -1)
    buffer += b"\n"


def decode(line: bytes | memoryview) -> Event:
    """The event of one line; raises msgspec.DecodeError (msgspec.ValidationError included) for anything else."""
    return _decoder.decode(line)


__all__ = [
    "ApiCall",
    "Context",
    "Decision",
    "Error",
    "Event",
    "InteractionStarted",
    "LimitMark",
    "LimitRefusal",
    "RunEnded",
    "RunStarted",
    "decode",
    "encode_into",
]
