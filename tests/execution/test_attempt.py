"""One attempt under the test's clock: when it gives up, what it holds back, what it makes of what comes."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, TimedOut, UpstreamError
from holdfast.execution.attempt import AFTER_END_NS, MAX_ANSWER, Attempt, AttemptOptions, AttemptResult
from holdfast.execution.upstream import Headers, Origin, UpstreamRequest
from holdfast.testing import FakeClock, MemoryUpstream
from holdfast.testing.upstream import MemoryExchange
from holdfast.wire import openai_chat
from holdfast.wire.call import Call, Rewrite, StreamReader

REQUEST = UpstreamRequest(
    origin=Origin("u.test", 80, tls=False), method=b"POST", target=b"/", headers=(), body=b"", connect_timeout_ns=SECOND
)
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
MORE = b'data: {"choices":[{"index":0,"delta":{"content":" there"}}]}\n\n'
FAILED = b'data: {"error":{"message":"overloaded"}}\n\n'
DONE = b"data: [DONE]\n\n"
FIRST_TOKEN, IDLE, TOTAL = 20 * SECOND, 30 * SECOND, 120 * SECOND


class Watched:
    """An attempt, and what its listener heard."""

    def __init__(self, *, stream: bool = True, relayed: bool = False, total_ns: int = TOTAL) -> None:
        self.clock = FakeClock(monotonic_ns=7 * SECOND)
        self.upstream = MemoryUpstream()
        self.heard: list[str] = []
        self.passed = b""
        self.ended: AttemptResult | None = None
        options = AttemptOptions(
            first_token_ns=FIRST_TOKEN if stream else None, idle_ns=IDLE, total_at_ns=self.clock.monotonic_ns() + total_ns
        )
        self.attempt = Attempt(self.upstream, REQUEST, options, self.clock, self, None if relayed else reader)

    def begin(self) -> MemoryExchange:
        self.attempt.start()
        return self.upstream.latest

    def attempt_committed(self, status: int, headers: Headers, data: bytes) -> None:
        self.heard.append(f"committed {status}")
        self.passed += data

    def attempt_data(self, data: bytes) -> None:
        self.heard.append("data")
        self.passed += data

    def attempt_ended(self, result: AttemptResult) -> None:
        assert self.ended is None
        self.heard.append("ended")
        self.ended = result

    @property
    def result(self) -> AttemptResult:
        assert self.ended is not None
        return self.ended

    @property
    def timed_out(self) -> tuple[str, int]:
        """Which time-out ended it, and after how many seconds."""
        error = self.result.error
        assert isinstance(error, TimedOut)
        return error.kind, error.after_ns // SECOND


def reader() -> StreamReader:
    return openai_chat.FORMAT.stream(Call(model="m", stream=True), Rewrite())


def test_a_stream_that_never_begins_times_out_at_its_first_token() -> None:
    watched = Watched()
    exchange = watched.begin()
    watched.clock.advance(FIRST_TOKEN - 1)
    assert not watched.heard
    watched.clock.advance(1)
    assert watched.timed_out == ("first_token", 20)
    assert exchange.cancelled and not watched.clock.pending


def test_neither_headers_nor_a_role_put_the_first_token_off() -> None:
    watched = Watched()
    exchange = watched.begin()
    watched.clock.advance(19 * SECOND)
    exchange.start()
    exchange.data(ROLE)
    watched.clock.advance(SECOND)
    assert watched.timed_out == ("first_token", 20)
    assert (watched.heard, watched.passed, watched.result.committed) == (["ended"], b"", False)
    assert (watched.result.status, watched.result.held) == (200, ROLE)


def test_an_answer_that_is_no_stream_has_until_the_total_time_out() -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ((b"content-type", b"application/json"),))
    exchange.data(b'{"choices"')
    watched.clock.advance(TOTAL - 1)
    assert not watched.heard
    watched.clock.advance(1)
    assert watched.timed_out == ("total", 120)
    assert (watched.result.whole, exchange.cancelled) == (False, True)


def test_a_total_time_out_that_is_nearer_than_the_first_tokens_counts() -> None:
    watched = Watched(total_ns=5 * SECOND)
    watched.begin()
    watched.clock.advance(5 * SECOND)
    assert watched.timed_out == ("total", 5)


def test_a_total_time_out_that_has_passed_ends_the_attempt_at_once() -> None:
    watched = Watched(total_ns=0)
    watched.begin()
    watched.clock.advance(0)
    assert watched.timed_out == ("total", 0)


def test_every_token_gives_the_next_one_the_idle_time_out() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO)
    for _ in range(3):
        watched.clock.advance(IDLE - 1)
        exchange.data(MORE)
    assert watched.heard == ["committed 200", "data", "data", "data"]
    watched.clock.advance(IDLE - 1)
    assert watched.ended is None
    watched.clock.advance(1)
    assert watched.timed_out[0] == "idle"
    assert watched.result.committed and watched.result.received == len(HELLO + 3 * MORE)


def test_the_total_time_out_ends_a_stream_that_flows() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    for _ in range(12):
        exchange.data(HELLO)
        watched.clock.advance(10 * SECOND)
    assert watched.timed_out == ("total", 120)


def test_while_the_agent_does_not_read_nobody_is_idle() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO)
    watched.attempt.pause()
    watched.clock.advance(70 * SECOND)
    assert exchange.paused and watched.ended is None
    watched.attempt.resume()
    assert not exchange.paused
    watched.clock.advance(IDLE - 1)
    assert watched.ended is None
    watched.clock.advance(1)
    assert watched.timed_out[0] == "idle"


def test_the_total_time_out_does_not_wait_for_an_agent_that_does_not_read() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO)
    watched.attempt.pause()
    watched.clock.advance(TOTAL)
    assert watched.timed_out == ("total", 120)


def test_nothing_leaves_before_the_first_real_token_and_then_everything_in_order() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(ROLE[:10], ROLE[10:], HELLO[:-1])
    assert not watched.heard
    exchange.data(HELLO[-1:])
    assert (watched.heard, watched.passed) == (["committed 200"], ROLE + HELLO)
    assert watched.attempt.result.first_token_ns == 7 * SECOND


def test_the_last_bytes_are_held_for_the_record() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(ROLE + HELLO, MORE, DONE)
    assert watched.passed == ROLE + HELLO + MORE
    exchange.end()
    assert (watched.result.held, watched.result.error, watched.result.whole) == (DONE, None, True)
    assert not watched.clock.pending


def test_a_stream_that_came_at_once_is_held_whole() -> None:
    watched = Watched()
    watched.begin().stream(ROLE + HELLO + DONE)
    assert (watched.heard, watched.result.held, watched.result.committed) == (["ended"], ROLE + HELLO + DONE, False)
    assert watched.result.first_token_ns is not None


@pytest.mark.parametrize(("last", "error"), [(DONE, None), (FAILED, b'{"error":{"message":"overloaded"}}')])
@pytest.mark.parametrize("goes_on", ["silence", "cut"])
def test_after_its_own_last_word_a_stream_neither_waits_for_nor_fails_by_its_connection(
    last: bytes, error: bytes | None, goes_on: str
) -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO, last)
    assert watched.ended is None
    if goes_on == "cut":
        exchange.fail(ConnectionCut("closed"))
    else:
        watched.clock.advance(AFTER_END_NS)
        assert exchange.cancelled
    assert (watched.result.error, watched.result.held) == (None, last)
    assert watched.result.stream is not None and watched.result.stream.error == error


@pytest.mark.parametrize("pieces", [(), (ROLE,), (HELLO,)])
def test_a_stream_without_its_terminal_marker_is_cut_however_it_ended(pieces: tuple[bytes, ...]) -> None:
    watched = Watched()
    watched.begin().stream(*pieces)
    assert isinstance(watched.result.error, ConnectionCut)
    assert watched.passed + watched.result.held == b"".join(pieces)


def test_a_torn_event_at_the_end_is_handed_over_apart() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO, MORE[:20])
    exchange.fail(ConnectionCut("closed"))
    assert (watched.passed, watched.result.held) == (HELLO, MORE[:20])


def test_a_cut_answer_keeps_what_came_and_is_not_whole() -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ())
    exchange.data(b"half")
    exchange.fail(ConnectionCut("closed"))
    assert (watched.result.body, watched.result.whole) == (b"half", False)
    assert isinstance(watched.result.error, ConnectionCut)


@pytest.mark.parametrize("status", [400, 429, 500])
def test_an_error_answer_is_read_whole_even_as_an_event_stream(status: int) -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start(status)
    exchange.data(b"data: no\n", b"\n")
    exchange.end()
    assert (watched.result.status, watched.result.body, watched.result.stream, watched.result.error) == (
        status,
        b"data: no\n\n",
        None,
        None,
    )


def test_a_relayed_answer_passes_as_it_comes_and_times_out_when_idle() -> None:
    watched = Watched(stream=False, relayed=True)
    exchange = watched.begin()
    exchange.start(201, ((b"content-type", b"text/plain"), (b"content-encoding", b"br")))
    exchange.data(b"a", b"b")
    watched.clock.advance(IDLE - 1)
    exchange.data(b"c")
    assert (watched.heard, watched.passed) == (["committed 201", "data", "data", "data"], b"abc")
    watched.clock.advance(IDLE)
    assert watched.timed_out == ("idle", 59)


def test_a_relayed_error_answer_is_read_whole() -> None:
    watched = Watched(stream=False, relayed=True)
    watched.begin().answer(b"no", 503)
    assert (watched.heard, watched.result.body, watched.result.committed) == (["ended"], b"no", False)


def test_a_failure_inside_send_ends_the_attempt_once() -> None:
    watched = Watched()
    watched.upstream.refusing = ConnectFailed("closed")
    watched.begin()
    assert (watched.heard, watched.result.error, watched.clock.pending) == (["ended"], watched.upstream.refusing, 0)
    watched.attempt.cancel()
    watched.clock.advance(TOTAL)
    assert watched.heard == ["ended"]


def test_a_cancelled_attempt_is_silent_and_stops_its_upstream() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO)
    watched.clock.advance(5 * MILLISECOND)
    result = watched.attempt.cancel()
    watched.clock.advance(TOTAL)
    assert exchange.cancelled and watched.heard == ["committed 200"]
    assert result.ended_ns - result.began_ns == 5 * MILLISECOND
    assert watched.attempt.cancel() is result


def deflate_raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflate_raw)],
)
@pytest.mark.parametrize("step", [1, 1000])
def test_a_coding_that_was_not_asked_for_is_taken_off(coding: str, pack: Callable[[bytes], bytes], step: int) -> None:
    whole, streamed = Watched(stream=False), Watched()
    for watched, kind, said in ((whole, b"application/json", b'{"a": 1}' * 50), (streamed, b"text/event-stream", ROLE + HELLO + DONE)):
        exchange = watched.begin()
        exchange.start(200, ((b"content-type", kind), (b"content-encoding", coding.encode())))
        packed = pack(said)
        exchange.data(*(packed[at : at + step] for at in range(0, len(packed), step)))
        exchange.end()
        assert watched.passed + (watched.result.held or watched.result.body) == said
        assert watched.result.error is None and watched.result.received == len(packed)


@pytest.mark.parametrize("status", [200, 500])
def test_an_unknown_coding_is_garbage_because_usage_could_not_be_read(status: int) -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start(status, ((b"content-encoding", b"br"),))
    assert exchange.cancelled and isinstance(watched.result.error, GarbageReceived) and not watched.result.whole


@pytest.mark.parametrize("sent", [b"not compressed", gzip.compress(b"x" * 100)[:-20] + b"\x00" * 30])
def test_what_does_not_decompress_is_garbage(sent: bytes) -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ((b"content-encoding", b"gzip"),))
    exchange.data(sent)
    assert exchange.cancelled and isinstance(watched.result.error, GarbageReceived)


def test_an_answer_that_inflates_beyond_all_measure_is_garbage() -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ((b"content-encoding", b"gzip"),))
    exchange.data(gzip.compress(bytes(MAX_ANSWER + 1), 1))
    assert exchange.cancelled and isinstance(watched.result.error, GarbageReceived)


def test_an_answer_without_end_is_given_up() -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ())
    piece = bytes(MAX_ANSWER // 4)
    exchange.data(piece, piece, piece, piece)
    assert watched.ended is None
    exchange.data(b"x")
    assert exchange.cancelled and isinstance(watched.result.error, GarbageReceived)


def test_identity_is_no_coding() -> None:
    watched = Watched(stream=False)
    watched.begin().answer(b"{}", headers=((b"content-encoding", b"identity"),))
    error: UpstreamError | None = watched.result.error
    assert (watched.result.body, error) == (b"{}", None)


def test_what_follows_a_streams_last_word_does_not_put_its_end_off() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    exchange.data(HELLO, DONE)
    watched.clock.advance(AFTER_END_NS - 1)
    exchange.data(b": still here\n\n")
    watched.clock.advance(1)
    assert watched.result.error is None and exchange.cancelled
    assert watched.result.held == DONE + b": still here\n\n"


def test_a_stream_that_never_begins_holds_no_more_than_an_answer_may_be_long() -> None:
    watched = Watched()
    exchange = watched.begin()
    exchange.start()
    comment = b": " + b"x" * (1 << 20) + b"\n\n"
    for _ in range(MAX_ANSWER >> 20):
        exchange.data(comment)
    assert isinstance(watched.result.error, GarbageReceived) and exchange.cancelled


def test_an_answer_is_measured_without_its_content_coding() -> None:
    watched = Watched(stream=False)
    exchange = watched.begin()
    exchange.start(200, ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")))
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    for _ in range(3):
        exchange.data(packer.compress(bytes(MAX_ANSWER // 2)) + packer.flush(zlib.Z_FULL_FLUSH))
    assert isinstance(watched.result.error, GarbageReceived) and exchange.cancelled
