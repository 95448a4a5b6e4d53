"""A request that has come in: whose it is, which conversation it goes on with, and the record that is kept of it."""

from msgspec import Struct

from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.gate import Entry
from holdfast.gateway.identity import Caller
from holdfast.gateway.origin import history_of, origin_of
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import CallRecord, Subject
from holdfast.policy.history import Claim
from holdfast.wire.call import Call


class Arrival(Struct, frozen=True):
    """claim: to the conversation, None where the request holds no history."""

    entry: Entry
    record: CallRecord
    claim: Claim | None


class Times(Struct, frozen=True):
    """Monotonic instants of a call in nanoseconds: its beginning, and when it must have ended."""

    began_ns: int
    total_at_ns: int


def arrive(parts: Parts, caller: Caller, endpoint: Endpoint, call: Call, call_id: str, times: Times, price: int | None) -> Arrival:
    """price: nano-dollars of a call whose body is not read, None: not known."""
    clock = parts.clock
    began_wall_ns = clock.wall_ns() - (clock.monotonic_ns() - times.began_ns)
    origin, claim = origin_of(parts, caller, call, call_id)
    subject = Subject(
        call_id=call_id,
        target_api=endpoint.api,
        format_name="" if endpoint.format is None else endpoint.format.name,
        call=call,
        began_ns=times.began_ns,
        began_wall_ns=began_wall_ns,
    )
    entry = Entry(
        call=call,
        agent=caller.agent,
        origin=origin,
        endpoint=endpoint,
        price=price,
        history=history_of(parts, caller, call),
        began_wall_ns=began_wall_ns,
        total_at_ns=times.total_at_ns,
    )
    return Arrival(entry, CallRecord(parts.recorder, clock, origin, subject), claim)
