"""One request relayed as it is: sent, with its body as that comes, its time-outs watched, its answer passed on piece by piece.

What is kept back of the answer, and what becomes of a failure, is decided by whoever started it.
"""

from typing import Protocol

from msgspec import Struct, structs

from holdfast.clock import Clock, Timer
from holdfast.errors import TimedOut, TimeoutKind, UpstreamError
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import BodySink, BodySource, Exchange, Headers, Upstream, UpstreamRequest

NEVER = 1 << 62


class RelayOptions(Struct, frozen=True, kw_only=True):
    """first_byte_ns: from the end of the request to the beginning of its answer, None: any time that `total_at_ns` leaves. idle_ns: between
    two pieces of the answer, and for which the upstream may take none of a request's body, None: any. total_at_ns: monotonic instant at
    which the whole call ends, `NEVER` for one that lasts as long as both sides like."""

    first_byte_ns: int | None
    idle_ns: int | None
    total_at_ns: int


class RelayListener(Protocol):
    """Hears about one relayed request: perhaps started, then data…; ended exactly once, unless it was cancelled."""

    def relay_started(self, status: int, headers: Headers) -> None: ...

    def relay_data(self, data: bytes) -> None: ...

    def relay_ended(self, result: AttemptResult) -> None:
        """The body is not in the result: it was passed on."""

    def relay_broke(self, defect: Exception) -> None:
        """Something raised that should not have, here or in the listener itself; the relay is over."""


class Relay:
    """Implements `Receiver`; nothing is sent before `start`. sent: bytes of the request's body, as far as they were taken."""

    def __init__(self, upstream: Upstream, request: UpstreamRequest, options: RelayOptions, clock: Clock, listener: RelayListener) -> None:
        self.result = AttemptResult(began_ns=clock.monotonic_ns())
        self.sent = len(request.body)
        self._upstream = upstream
        self._request = request
        self._options = options
        self._clock = clock
        self._listener = listener
        self._exchange: Exchange | None = None
        self._over = False
        self._paused = False
        self._phase: TimeoutKind = "total"
        self._due = NEVER
        self._timer: Timer | None = None
        self._timer_at = 0

    def start(self) -> None:
        """Send the request. The listener may hear of a failure before this returns."""
        request = self._request
        if request.upload is None:
            self._wait("first_byte", self._options.first_byte_ns)
        else:
            request = structs.replace(request, upload=_Watched(request.upload, self))
            self._wait("total", None)
        self._exchange = self._upstream.send(request, self)
        if self._over:
            self._exchange = None
        elif self._paused:
            self._exchange.pause()

    def cancel(self) -> AttemptResult:
        """Drop it at once; the listener hears nothing more. Returns how far it came."""
        if not self._over:
            if self._exchange is not None:
                self._exchange.cancel()
            self._finish()
        return self.result

    def fail(self, error: UpstreamError) -> None:
        """Drop it at once; it ends with this error."""
        self.cancel()
        self.result.error = error
        self._listener.relay_ended(self.result)

    def pause(self) -> None:
        """Stop reading the answer; until `resume` no pause between two pieces is the upstream's."""
        self._paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        self._paused = False
        if self._phase == "idle":
            self._progress()
        if self._exchange is not None:
            self._exchange.resume()

    def response_started(self, status: int, headers: Headers) -> None:
        try:
            self.result.status, self.result.headers = status, headers
            self.result.first_token_ns = self._clock.monotonic_ns()
            self._wait("idle", self._options.idle_ns)
            self._listener.relay_started(status, headers)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def response_data(self, data: bytes) -> None:
        try:
            self.result.received += len(data)
            self._progress()
            self._listener.relay_data(data)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def response_ended(self) -> None:
        self._end(None)

    def response_failed(self, error: UpstreamError) -> None:
        self._end(error)

    def body_taken(self, size: int) -> None:
        """So many bytes more of the request's body were taken."""
        self.sent += size
        self._progress()

    def body_waits(self) -> None:
        """The upstream takes no more of the body for now."""
        if not self.result.status:
            self._wait("idle", self._options.idle_ns)

    def body_goes_on(self) -> None:
        """It takes more; whether more comes is the agent's business."""
        if not self.result.status:
            self._wait("total", None)

    def body_ended(self) -> None:
        """All of the request's body was taken."""
        if not self.result.status:
            self._wait("first_byte", self._options.first_byte_ns)

    def _end(self, error: UpstreamError | None) -> None:
        if self._over:
            return
        try:
            self.result.error = error
            self.result.whole = error is None
            self._finish()
            self._listener.relay_ended(self.result)
        except Exception as defect:  # noqa: BLE001 - see _broke
            self._broke(defect)

    def _broke(self, defect: Exception) -> None:
        """Nobody above a transport's callback or a timer would catch it: the agent would wait, and money stay reserved, for ever."""
        self.cancel()
        self._listener.relay_broke(defect)

    def _finish(self) -> None:
        self._over = True
        self._exchange = None  # it holds on to this object: reference counting then frees both at once
        self.result.ended_ns = self._clock.monotonic_ns()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _progress(self) -> None:
        if self._phase == "idle" and self._options.idle_ns is not None:
            self._due = self._clock.monotonic_ns() + self._options.idle_ns

    def _wait(self, phase: TimeoutKind, span_ns: int | None) -> None:
        """Enter a phase that lasts at most `span_ns`; the running timer is only replaced when it would come too late."""
        now = self._clock.monotonic_ns()
        due = NEVER if span_ns is None else now + span_ns
        if due >= self._options.total_at_ns:
            phase, due = "total", self._options.total_at_ns
        self._phase, self._due = phase, due
        if due < NEVER and (self._timer is None or due < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._set(due, now)

    def _set(self, due: int, now: int) -> None:
        self._timer_at = due
        self._timer = self._clock.call_later(max(due - now, 0), self._on_timer)

    def _on_timer(self) -> None:
        """Progress moves `_due` without touching the timer: a timer that is early sets itself again."""
        self._timer = None
        now = self._clock.monotonic_ns()
        if self._paused and self._phase == "idle":
            self._progress()
        due = min(self._due, self._options.total_at_ns)
        if now < due:
            if due < NEVER:
                self._set(due, now)
            return
        if self._exchange is not None:
            self._exchange.cancel()
        kind: TimeoutKind = "total" if now >= self._options.total_at_ns else self._phase
        self.response_failed(TimedOut(kind, now - self.result.began_ns))


class _Watched:
    """A request's body on its way, as a `BodySource` and a `BodySink`: counts it, and tells the relay who is waiting for whom."""

    __slots__ = ("_relay", "_sink", "_source", "length")

    def __init__(self, source: BodySource, relay: Relay) -> None:
        self.length = source.length
        self._source = source
        self._relay = relay
        self._sink: BodySink | None = None

    def start(self, sink: BodySink) -> None:
        self._sink = sink
        self._source.start(self)

    def pause(self) -> None:
        self._source.pause()
        self._relay.body_waits()

    def resume(self) -> None:
        self._relay.body_goes_on()
        self._source.resume()

    def stop(self) -> None:
        self._sink = None
        self._source.stop()

    def body_data(self, data: bytes) -> None:
        if self._sink is not None:
            self._relay.body_taken(len(data))
            self._sink.body_data(data)

    def body_ended(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.body_ended()
            self._relay.body_ended()
