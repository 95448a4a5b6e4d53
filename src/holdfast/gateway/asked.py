"""What one target of a call's route is asked: the agent's own request, or its translation."""

from msgspec import Struct

from holdfast.gateway.gate import Entry
from holdfast.gateway.routing import Destination
from holdfast.gateway.translated import translated
from holdfast.wire.call import Call, WireFormat
from holdfast.wire.translation import Translation
from holdfast.wire.translation.foreign import without_foreign_thoughts


class Asked(Struct, frozen=True, kw_only=True):
    """entry: with the call as the target's format reads it. body: in that format.

    spoken: the caller's format, None for what passes unread. call, source: the request as it is in that format. translation: from it to
    the target's, None where they are the same. last: no other target is left.
    """

    entry: Entry
    destination: Destination
    body: bytes
    spoken: WireFormat | None
    call: Call
    source: bytes
    translation: Translation | None = None
    last: bool = True


def asked_of(entry: Entry, body: bytes, destination: Destination, *, last: bool = True) -> Asked:
    """What `destination` is asked for `entry` with its `body`; raises Untranslatable."""
    spoken, call = entry.endpoint.format, entry.call
    if not destination.format:
        sent = body if spoken is None else without_foreign_thoughts(spoken.name, body)
        return Asked(entry=entry, destination=destination, body=sent, spoken=spoken, call=call, source=body, last=last)
    there, sent, translation = translated(entry, body, destination)
    return Asked(entry=there, destination=destination, body=sent, spoken=spoken, call=call, source=body, translation=translation, last=last)
