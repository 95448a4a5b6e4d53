"""What counts against whom: a failure is held against what it says something about, and against nothing else."""

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, TimedOut, UpstreamError, Withdrawn
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.verdict import NOTHING, SUCCEEDED, Verdict, took_ns, verdict
from holdfast.wire.openai_chat_answer import ChatStreamReader

UNREACHED = Verdict(provider="failure", tool="failure")
FAILED = Verdict(provider="suspicion", model="failure", tool="failure")
REJECTED = Verdict(key="suspicion", sure=True)
WHOLE = 600 * SECOND


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectFailed("refused"), UNREACHED),
        (TimedOut("connect", SECOND), UNREACHED),
        (TimedOut("first_token", SECOND), FAILED),
        (TimedOut("idle", SECOND), FAILED),
        (ConnectionCut("cut"), FAILED),
        (GarbageReceived("not HTTP"), FAILED),
        (Withdrawn("killed"), NOTHING),
    ],
)
def test_of_errors_below_http(error: UpstreamError, expected: Verdict) -> None:
    assert verdict(AttemptResult(error=error, ended_ns=SECOND), WHOLE) == expected


@pytest.mark.parametrize(("took", "expected"), [(299, NOTHING), (300, FAILED)])
def test_running_out_of_the_whole_time_counts_where_the_attempt_had_at_least_half_of_it(took: int, expected: Verdict) -> None:
    result = AttemptResult(error=TimedOut("total", 1), began_ns=5, ended_ns=5 + took * SECOND)
    assert verdict(result, WHOLE) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, SUCCEEDED),
        (204, SUCCEEDED),
        (304, SUCCEEDED),
        (400, Verdict(key="success", tool="success")),
        (404, Verdict(key="success", tool="success")),
        (422, Verdict(key="success", tool="success")),
        (408, Verdict(key="success")),
        (429, Verdict(key="success")),
        (401, REJECTED),
        (402, REJECTED),
        (403, Verdict(key="suspicion")),
        (500, FAILED),
        (502, FAILED),
        (503, FAILED),
        (504, FAILED),
        (529, FAILED),
        (501, NOTHING),
    ],
)
def test_of_statuses(status: int, expected: Verdict) -> None:
    assert verdict(AttemptResult(status=status, body=b'{"error": {"code": null}}'), WHOLE) == expected


def test_a_429_for_want_of_credit_rejects_the_key() -> None:
    assert verdict(AttemptResult(status=429, body=b'{"error": {"code": "insufficient_quota"}}'), WHOLE) == REJECTED


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'{"error": {"message": "overloaded", "type": "server_error"}}', FAILED),
        (b'{"error": {"message": "slow down", "type": "rate_limit_error"}}', Verdict(key="success")),
        (b'{"error": {"message": "no", "type": "invalid_request_error"}}', Verdict(key="success")),
        (b'{"error": {"message": "pay", "code": "insufficient_quota"}}', REJECTED),
    ],
)
def test_of_error_events_inside_a_stream(event: bytes, expected: Verdict) -> None:
    stream = ChatStreamReader(hide_usage=False)
    stream.feed(b"data: " + event + b"\n\n")
    found = verdict(AttemptResult(status=200, stream=stream, whole=True), WHOLE)
    assert (found.provider, found.model, found.tool, found.sure) == (expected.provider, expected.model, expected.tool, expected.sure)


def test_a_call_took_as_long_as_its_first_token_did_else_as_its_whole() -> None:
    assert took_ns(AttemptResult(began_ns=5, first_token_ns=8, ended_ns=50)) == 3
    assert took_ns(AttemptResult(began_ns=5, ended_ns=50)) == 45
