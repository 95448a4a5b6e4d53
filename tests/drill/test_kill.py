"""The drill's verdict: what was promised and is not so is named, and without load nothing is proven."""

from msgspec import structs

from holdfast.drill.kill import Measured
from holdfast.drill.load import OpenStream
from holdfast.testing import FakeClock

GOOD = Measured(
    workers=2,
    rate=100,
    served_before=300,
    command_ms=200.0,
    confirmed_ms=15.0,
    admitted_after_return=0,
    refused_after=300,
    last_admitted_ms=50.0,
    streams=5,
    streams_well_formed=5,
    streams_ended_ms=210.0,
    resume_ms=200.0,
    first_call_ms=5.0,
)
ERROR = b'data: {"error":{"message":"stopped","type":"server_error","code":"killed","param":null}}\n\n'
TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'


def test_what_is_not_as_promised_is_named() -> None:
    assert GOOD.failures == []
    for change, says in (
        ({"admitted_after_return": 1}, "1 calls were admitted"),
        ({"streams_well_formed": 4}, "1 of 5 streams"),
        ({"served_before": 0}, "nothing is proven"),
        ({"refused_after": 0}, "nothing is proven"),
    ):
        (failure,) = structs.replace(GOOD, **change).failures
        assert says in failure


def test_a_stream_counts_only_when_it_ends_properly_with_the_error_event() -> None:
    for pieces, proper, good in (
        ((TOKEN, ERROR), True, True),
        ((TOKEN + ERROR[:9], ERROR[9:]), True, True),
        ((TOKEN, ERROR), False, False),
        ((TOKEN,), True, False),
        ((TOKEN[:9], ERROR), True, False),
        ((ERROR, b"data: [DONE]\n\n"), True, False),
        ((), True, False),
    ):
        stream = OpenStream(FakeClock())
        for piece in pieces:
            stream.response_data(piece)
        if proper:
            stream.response_ended()
        assert stream.well_formed == good
