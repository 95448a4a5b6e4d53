"""One attempt at an upstream: send, watch the time-outs, hold a stream back until its first real token, say how it ended.

What becomes of the attempt (retry, fall back, pass on) is decided by whoever started it. Until `committed` nothing has left this
module, so another attempt may take over without the caller noticing.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from holdfast.clock import SECOND, Clock, Timer
from holdfast.errors import ConnectionCut, GarbageReceived, TimedOut, TimeoutKind, UpstreamError
from holdfast.execution.inflater import Inflater
from holdfast.execution.upstream import Exchange, Headers, Upstream, UpstreamRequest
from holdfast.wire.call import StreamReader

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of an answer that are held here, read whole or before a stream's first real token; more fail the attempt."""

AFTER_END_NS = SECOND
"""How long an upstream may take to end its body after the stream's own terminal marker or error event."""

RATE_WINDOW_NS = 10 * SECOND
"""Over which the token rate of a stream is measured."""

BYTES_PER_TOKEN = 4
"""Of generated text, about; see OpenAI's and Anthropic's own rules of thumb."""

_NEVER = 1 << 62


class AttemptOptions(Struct, frozen=True, kw_only=True):
    """first_token_ns: from the attempt's beginning to the first real token of a stream; None when no stream was asked for. idle_ns:
    between two pieces of a stream. total_at_ns: monotonic instant at which the whole call ends, retries and fallbacks included.
    min_tokens_per_s: of a stream after its first token, over `RATE_WINDOW_NS`; 0: any rate will do. answer_ns: from the beginning to the
    end of an answer that is read whole; None: until total."""

    first_token_ns: int | None
    idle_ns: int
    total_at_ns: int
    min_tokens_per_s: float = 0
    answer_ns: int | None = None


class AttemptResult(Struct, kw_only=True):
    """How an attempt ended.

    status: 0 when no answer began. body: a whole answer or error body, empty for a stream. stream: what was read of a streamed answer.
    held: the last bytes of a committed stream, not yet passed on. whole: the transport delivered it to its end. error: why it is no
    answer all the same, or not whole. first_token_ns: of a stream, or when the head of an answer came that is relayed unread. Instants are
    monotonic nanoseconds.
    """

    status: int = 0
    headers: Headers = ()
    body: bytes = b""
    stream: StreamReader | None = None
    held: bytes = b""
    committed: bool = False
    whole: bool = False
    error: UpstreamError | None = None
    began_ns: int = 0
    first_token_ns: int | None = None
    ended_ns: int = 0
    received: int = 0


class AttemptListener(Protocol):
    """Hears about one attempt: perhaps committed, then data…; ended exactly once, unless it was cancelled."""

    def attempt_committed(self, status: int, headers: Headers, data: bytes) -> None:
        """The first bytes that must be passed on; from here on the attempt cannot be replaced."""

    def attempt_data(self, data: bytes) -> None: ...

    def attempt_ended(self, result: AttemptResult) -> None: ...

    def attempt_broke(self, defect: Exception) -> None:
        """Something raised that should not have, here or in the listener itself; the attempt is over."""


class Attempt:
    """Implements `Receiver`; nothing is sent before `start`.

    read_stream: makes the reader of a successful event stream; None relays a success unread as it comes.
    """

    def __init__(
        self,
        upstream: Upstream,
        request: UpstreamRequest,
        options: AttemptOptions,
        clock: Clock,
        listener: AttemptListener,
        read_stream: Callable[[], StreamReader] | None,
    ) -> None:
        self._upstream = upstream
        self._request: UpstreamRequest | None = request
        self._clock = clock
        self._listener = listener
        self._options = options
        self._read_stream = read_stream
        self.result = AttemptResult(began_ns=clock.monotonic_ns())
        self._pieces: list[bytes] = []
        self._held = 0
        self._relayed = False
        self._paused = False
        self._decoder: Inflater | None = None
        self._over = False
        self._phase: TimeoutKind = "total"
        self._due = _NEVER
        self._timer: Timer | None = None
        self._pace_at = _NEVER
        self._paced_bytes = 0
        self._exchange: Exchange | None = None

    def start(self) -> None:
        """Send the request. The listener may hear of a failure before this returns."""
        first_token_ns, answer_ns = self._options.first_token_ns, self._options.answer_ns
        if first_token_ns is not None:
            self._wait("first_token", first_token_ns)
        elif answer_ns is not None:
            self._wait("answer", answer_ns)
        else:
            self._wait("total", _NEVER)
        request, self._request = self._request, None  # how long it is needed, the transport knows: its body may be long, a stream too
        assert request is not None
        self._exchange = self._upstream.send(request, self)

    def cancel(self) -> AttemptResult:
        """Drop the attempt at once; the listener hears nothing more. Returns how far it came."""
        if not self._over:
            if self._exchange is not None:
                self._exchange.cancel()
            self._finish_quietly()
        return self.result

    def pause(self) -> None:
        """Stop reading; until `resume` no pause between two pieces is the upstream's."""
        self._paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self._paused = False
        if self._phase == "idle":
            self._due = self._clock.monotonic_ns() + self._options.idle_ns
        if self._exchange is not None:
            self._exchange.resume()

    def response_started(self, status: int, headers: Headers) -> None:
        try:
            self._started(status, headers)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def response_data(self, data: bytes) -> None:
        try:
            self._data(data)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def response_ended(self) -> None:
        try:
            self._end(None)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def response_failed(self, error: UpstreamError) -> None:
        try:
            self._end(None if self._said_its_end() else error)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def _broke(self, defect: Exception) -> None:
        """Nobody above a transport's callback or a timer would catch it: the agent would wait, and money stay reserved, for ever."""
        self.cancel()
        self._listener.attempt_broke(defect)

    def _started(self, status: int, headers: Headers) -> None:
        result = self.result
        result.status = status
        result.headers = headers
        success = 200 <= status < 300
        encoding = _header(headers, b"content-encoding")
        if encoding and encoding != b"identity" and not (success and self._read_stream is None):
            try:
                self._decoder = Inflater(encoding, MAX_ANSWER)
            except KeyError:
                self._fail(GarbageReceived(f"answer in an encoding that nobody asked for: {encoding.decode('latin-1')[:40]}"))
                return
        if success and self._read_stream is None:
            self._relayed = True
            result.committed = True
            result.first_token_ns = self._clock.monotonic_ns()
            self._wait("idle", self._options.idle_ns)
            self._listener.attempt_committed(status, headers, b"")
        elif success and self._read_stream is not None and (_header(headers, b"content-type") or b"").startswith(b"text/event-stream"):
            result.stream = self._read_stream()

    def _data(self, data: bytes) -> None:
        self.result.received += len(data)
        if self._decoder is not None:
            try:
                data = self._decoder.decode(data)
            except zlib.error:
                self._fail(GarbageReceived("answer does not decompress"))
                return
        if self.result.stream is not None:
            self._stream_data(self.result.stream, data)
            if not self._over and not self.result.committed:
                self._hold(len(data))
        elif self._relayed:
            self._due = self._clock.monotonic_ns() + self._options.idle_ns
            self._listener.attempt_data(data)
        else:
            self._pieces.append(data)
            self._hold(len(data))

    def _hold(self, size: int) -> None:
        """Count what is kept in memory, after its content coding was taken off."""
        self._held += size
        if self._held > MAX_ANSWER:
            self._fail(GarbageReceived(f"answer is longer than {MAX_ANSWER >> 20} MiB"))

    def _stream_data(self, stream: StreamReader, data: bytes) -> None:
        result = self.result
        ending = stream.ended or stream.error is not None
        passed = stream.feed(data)
        if stream.committed and result.first_token_ns is None:
            result.first_token_ns = self._clock.monotonic_ns()
        if stream.ended or stream.error is not None:
            self._pieces.append(passed)
            if not ending:  # what follows the last word does not put the end off
                self._wait("idle", AFTER_END_NS)
            return
        if result.committed:
            self._due = self._clock.monotonic_ns() + self._options.idle_ns
            if passed:
                self._listener.attempt_data(passed)
            return
        self._pieces.append(passed)
        if stream.committed:
            result.committed = True
            if self._options.min_tokens_per_s:
                self._measure(stream)
            self._wait("idle", self._options.idle_ns)
            held, self._pieces = b"".join(self._pieces), []
            self._listener.attempt_committed(result.status, result.headers, held)

    def _said_its_end(self) -> bool:
        """Whether the stream's own last word came, be it of success or of failure."""
        stream = self.result.stream
        return stream is not None and (stream.ended or stream.error is not None)

    def _end(self, error: UpstreamError | None) -> None:
        """The transport is done; `held` keeps the last bytes so that the record can be written before they go out."""
        if self._over:
            return
        result = self.result
        if result.stream is not None:
            self._pieces.append(result.stream.flush())
            result.held = b"".join(self._pieces)
            if error is None and not self._said_its_end():
                error = ConnectionCut("the stream ended without its terminal marker")
        elif not self._relayed:
            result.body = b"".join(self._pieces) if len(self._pieces) != 1 else self._pieces[0]
        result.whole = error is None
        result.error = error
        self._finish_quietly()
        self._listener.attempt_ended(result)

    def _fail(self, error: UpstreamError) -> None:
        if self._exchange is not None:
            self._exchange.cancel()
        self._end(error)

    def _finish_quietly(self) -> None:
        self._over = True
        self._exchange = None  # it holds on to this object: reference counting then frees both at once
        self.result.ended_ns = self._clock.monotonic_ns()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, phase: TimeoutKind, span_ns: int) -> None:
        """Enter a phase that lasts at most `span_ns`; the running timer is only replaced when it would come too late."""
        now = self._clock.monotonic_ns()
        due = now + span_ns
        if due >= self._options.total_at_ns:
            phase, due = "total", self._options.total_at_ns
        earlier = min(due, self._pace_at) < self._due
        self._phase, self._due = phase, due
        if earlier:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._clock.call_later(max(min(due, self._pace_at) - now, 0), self._on_timer)

    def _on_timer(self) -> None:
        """Progress moves `_due` without touching the timer: a timer that is early sets itself again."""
        now = self._clock.monotonic_ns()
        total_at = self._options.total_at_ns
        if self._paused and self._phase == "idle":
            self._due = max(self._due, now + self._options.idle_ns)
        slow = now >= self._pace_at and self._is_slow()
        due = min(self._due, total_at, self._pace_at)
        if now < due and not slow:
            self._timer = self._clock.call_later(due - now, self._on_timer)
            return
        self._timer = None
        if self._exchange is not None:
            self._exchange.cancel()
        phase: TimeoutKind = "total" if now >= total_at else "token_rate" if slow and now < self._due else self._phase
        self.response_failed(TimedOut(phase, now - self.result.began_ns))

    def _measure(self, stream: StreamReader) -> None:
        """Begin a window of the token rate."""
        self._pace_at = self._clock.monotonic_ns() + RATE_WINDOW_NS
        self._paced_bytes = stream.generated_bytes

    def _is_slow(self) -> bool:
        """Whether too little came in the window that has ended; else the next one begins. What a slow reader holds up does not count."""
        stream = self.result.stream
        if stream is None or self._said_its_end():
            self._pace_at = _NEVER
            return False
        least = self._options.min_tokens_per_s * BYTES_PER_TOKEN * RATE_WINDOW_NS / SECOND
        if not self._paused and stream.generated_bytes - self._paced_bytes < least:
            return True
        self._measure(stream)
        return False


def _header(headers: Headers, name: bytes) -> bytes | None:
    for key, value in headers:
        if key == name:
            return value
    return None
