"""Sends one reply as its behaviour says, and bills what went out."""

from collections.abc import Callable

from holdfast.clock import Clock, Timer
from holdfast.execution.upstream import Headers
from holdfast.http.message import Response
from holdfast.testing.simulated_provider.answer import Reply, Streamed
from holdfast.testing.simulated_provider.behaviour import Behaviour
from holdfast.testing.simulated_provider.errors import JSON_HEADERS, error_body
from holdfast.testing.simulated_provider.garbage import send_garbage
from holdfast.testing.simulated_provider.stats import End, OpenCall, Stats
from holdfast.wire.call import Family

_STREAM_HEADERS: Headers = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
_BATCH = 32 * 1024
"""Bytes written at once while nothing paces a stream."""

_FAILURE = "The simulated provider failed on purpose."


class Delivery:
    """The way of one reply to its client."""

    def __init__(
        self, response: Response, clock: Clock, stats: Stats, call: OpenCall, reply: Reply, behaviour: Behaviour, headers: Headers = ()
    ) -> None:
        """headers: of the answer, beside its type."""
        self._headers = headers
        self._response = response
        self._clock = clock
        self._stats = stats
        self._call = call
        self._reply = reply
        self._behaviour = behaviour
        self._timer: Timer | None = None
        response.disconnected = self._client_left

    def _after(self, delay_ns: int, action: Callable[[], None]) -> None:
        if delay_ns:
            self._timer = self._clock.call_later(delay_ns, action)
        else:
            action()

    def _client_left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._stats.client_left(self._call.model, self._clock.wall_ns(), self._clock.monotonic_ns())
        self._bill_cancelled()

    def _bill_cancelled(self) -> None:
        """What had not begun to be sent is not billed."""
        self._call.end("cancelled")


class WholeDelivery(Delivery):
    """An answer with a length."""

    def begin(self, render: Callable[[Reply], bytes], family: Family) -> None:
        """Send what `render` writes, when it is time."""
        if self._behaviour.ending != "hang":
            self._after(self._behaviour.first_ns + self._behaviour.stall_ns, lambda: self._send(render, family))

    def _send(self, render: Callable[[Reply], bytes], family: Family) -> None:
        reply, ending = self._reply, self._behaviour.ending
        if ending == "proper":
            self._call.end("served", reply.input_tokens, reply.output_tokens, reply.reasoning_tokens)
            self._response.send(200, (*JSON_HEADERS, *self._headers), render(reply))
            return
        self._call.end("failed")
        if ending == "error_event":
            self._response.send(500, JSON_HEADERS, error_body(family, 500, _FAILURE))
        elif ending in {"cut", "early"}:
            self._break_off(render(reply))
        else:
            send_garbage(self._response, ending, stream=False)

    def _break_off(self, body: bytes) -> None:
        """Half of the body and then the end; not one byte where the behaviour cuts before the first token."""
        response, behaviour = self._response, self._behaviour
        if behaviour.pieces or behaviour.ending == "early":
            response.start(200, JSON_HEADERS)
            response.write(body[: len(body) // 2 if behaviour.pieces else 0])
        if behaviour.ending == "early":
            response.end()
        else:
            response.abort()


class StreamDelivery(Delivery):
    """An answer as server-sent events, paced by the clock and by the client."""

    _streamed: Streamed | None = None
    _paused = False
    _sent = 0
    _billed = 0

    def begin(self, render: Callable[[Reply], Streamed]) -> None:
        """Send what `render` streams, when it is time."""
        if self._behaviour.ending != "hang":
            self._after(self._behaviour.first_ns, lambda: self._start(render))

    def _start(self, render: Callable[[Reply], Streamed]) -> None:
        behaviour, response = self._behaviour, self._response
        if behaviour.ending.startswith("garbage"):
            self._call.end("failed")
            send_garbage(response, behaviour.ending, stream=True)
            return
        streamed = self._streamed = render(self._reply)
        response.pausing = self._pause
        response.resuming = self._resume
        self._call.stream_begun()
        response.start(200, (*_STREAM_HEADERS, *self._headers))
        if behaviour.stall_ns:
            response.write(streamed.opening)
            self._after(behaviour.stall_ns, lambda: self._pump(streamed))
        else:
            self._pump(streamed, streamed.opening)

    def _pump(self, streamed: Streamed, rest: bytes = b"") -> None:
        """Send `rest` and then tokens until the next pause, the client's or the clock's, or to the end."""
        self._timer = None
        while not self._paused:
            batch, more = self._batch(streamed)
            rest += batch
            if not more:
                self._finish(streamed, rest)
                return
            self._response.write(rest)
            rest = b""
            if self._behaviour.gap_ns:
                self._timer = self._clock.call_later(self._behaviour.gap_ns, lambda: self._pump(streamed))
                return

    def _batch(self, streamed: Streamed) -> tuple[bytes, bool]:
        """One token of a paced stream, else up to `_BATCH` bytes; and whether there is more."""
        batch: list[bytes] = []
        size = 0
        while self._sent != self._behaviour.pieces:
            piece = next(streamed.pieces, None)
            if piece is None:
                break
            data, tokens = piece
            batch.append(data)
            size += len(data)
            self._billed += tokens
            self._sent += tokens > 0
            if size > _BATCH or (tokens and self._behaviour.gap_ns):
                return b"".join(batch), True
        return b"".join(batch), False

    def _finish(self, streamed: Streamed, rest: bytes) -> None:
        ending = self._behaviour.ending
        self._streamed = None
        self._bill("served" if ending == "proper" else "cut")
        if ending == "proper":
            rest += streamed.closing()
        elif ending == "error_event":
            rest += streamed.error(_FAILURE)
        self._response.write(rest)
        if ending == "cut":
            self._response.abort()
        else:
            self._response.end()

    def _bill(self, how: End) -> None:
        reply = self._reply
        self._call.end(how, reply.input_tokens, self._billed, min(reply.reasoning_tokens, self._billed))

    def _bill_cancelled(self) -> None:
        if self._streamed is None:
            super()._bill_cancelled()
        else:
            self._bill("cancelled")

    def _pause(self) -> None:
        self._paused = True

    def _resume(self) -> None:
        self._paused = False
        if self._timer is None and self._streamed is not None:
            self._pump(self._streamed)
