"""HTTP/1.1 server: connections that answer strictly in order, hold bounded memory, and end when their time is up."""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec

from holdfast.clock import SECOND, Clock
from holdfast.execution.upstream import Headers
from holdfast.http.head import JOINED_BYTES, render, status_line
from holdfast.http.listener import Listener, bind
from holdfast.http.message import Application
from holdfast.http.reading import ReadBuffer, ReadingProtocol
from holdfast.http.requests import METHODS, Accepted, Bodies, Rejected, RequestParser, ServerOptions, Stage

__all__ = ["Connections", "Server", "ServerOptions", "ServerProtocol", "serve"]

SWEEP_NS = SECOND // 2
"""How often deadlines are looked at, and so how late they may be noticed: one timer for all connections instead of three per call."""

_HELD_BYTES = 64 * 1024
"""Pipelined bytes kept unread during an answer; above it the socket is not read either, and a client that leaves is noticed later."""

_LINGER_NS = 2 * SECOND
"""After a rejection: closing at once would reset the connection while the client still sends, and it would never read why."""

_FREE_SHARE = 8
"""Of so many connections that may be open, one is kept free by keeping none alive any more: idle ones must not keep new ones out."""

_NEVER = 1 << 63
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JSON = (b"content-type", b"application/json")
_SOON = (b"retry-after", b"1")
_ALLOW = (b"allow", b", ".join(sorted(METHODS)))

_log = logging.getLogger("holdfast.http")


class Server:
    """A listening server, as `serve` returns it; `host` and `port` are where it listens."""

    def __init__(self, listener: Listener, connections: "Connections", clock: Clock) -> None:
        self.host, self.port = listener.host, listener.port
        self._listener = listener
        self._connections = connections
        self._clock = clock

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections.open)

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        return self._connections.answering

    async def retire(self, idle_ns: int) -> None:
        """Leave to a successor on the same socket without failing a request: stop accepting, make every answer its connection's last,
        close connections that stay idle for `idle_ns`. Returns when the last one is gone, which may be never: see `close`."""
        self._listener.stop()
        self._connections.retire(idle_ns)
        await self._listener.arrived()
        await self._connections.emptied()

    async def close(self, drain_ns: int) -> None:
        """Stop accepting, close what is idle, let answers in progress end within `drain_ns`, then cut what is left."""
        self._listener.stop()
        connections = self._connections
        connections.drain()
        cut = self._clock.call_later(drain_ns, connections.cut)
        await self._listener.arrived()
        await connections.emptied()
        cut.cancel()
        connections.stop()


class Connections:
    """The open connections of one server, at most `options.max_connections`, and the sweep that ends those whose deadline has passed.

    parting: every answer is its connection's last. idle_ns: how long a connection may lie idle. answering: requests being answered.
    bodies: bytes of large request bodies in memory. freed: told whenever a connection is gone.
    """

    def __init__(self, clock: Clock, options: ServerOptions = ServerOptions()) -> None:  # noqa: B008 - frozen
        self.open: set[ServerProtocol] = set()
        self.parting = False
        self.closing = False
        self.idle_ns = options.keep_alive_ns
        self.retiring = False
        self.answering = 0
        self.bodies = Bodies(options.max_bodies_bytes)
        self.buffer = ReadBuffer()
        self.freed: Callable[[], None] = lambda: None
        self._crowd = options.max_connections - max(1, options.max_connections // _FREE_SHARE)
        self._clock = clock
        self._emptied: asyncio.Future[None] | None = None
        self._timer = clock.call_later(SWEEP_NS, self._sweep)

    def add(self, connection: "ServerProtocol") -> None:
        self.open.add(connection)
        self.parting = self.retiring or len(self.open) > self._crowd

    def remove(self, connection: "ServerProtocol") -> None:
        self.open.discard(connection)
        self.parting = self.retiring or len(self.open) > self._crowd
        self.freed()
        if self._emptied is not None and not self.open:
            self._emptied.set_result(None)
            self._emptied = None

    def retire(self, idle_ns: int) -> None:
        """Idle connections answer one more request, if it comes within `idle_ns`."""
        self.retiring = self.parting = True
        self.idle_ns = min(self.idle_ns, idle_ns)
        latest_ns = self._clock.monotonic_ns() + idle_ns
        for connection in self.open:
            if connection.idle:
                connection.deadline_ns = min(connection.deadline_ns, latest_ns)

    def drain(self) -> None:
        """Close what is idle; the others close with the end of their answer."""
        self.closing = self.retiring = self.parting = True
        for connection in list(self.open):
            connection.close_if_idle()

    def cut(self) -> None:
        for connection in list(self.open):
            connection.cut()

    async def emptied(self) -> None:
        """Returns when the last connection is gone."""
        if self.open:
            if self._emptied is None:
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def stop(self) -> None:
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._clock.monotonic_ns()
        for connection in [each for each in self.open if each.deadline_ns <= now]:
            connection.expire()
        self._timer = self._clock.call_later(SWEEP_NS, self._sweep)


class ServerProtocol(ReadingProtocol):
    """One connection. `deadline_ns` (monotonic) is when what it waits for must have come."""

    def __init__(self, application: Application, options: ServerOptions, clock: Clock, connections: Connections) -> None:
        super().__init__(connections.buffer)
        self.deadline_ns = clock.monotonic_ns() + options.header_timeout_ns
        self._application = application
        self._options = options
        self._clock = clock
        self._connections = connections
        self.transport: asyncio.Transport
        self._parser: RequestParser
        self._held = bytearray()
        self._answer: _Answer | None = None
        self._awaited: Stage | None = Stage.BETWEEN
        self._advancing = False
        self._full = False
        self._closing = False
        self._unsent = _NEVER

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        connection: socket.socket | None = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):  # asyncio does so only where `proto` is set
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername")
        self._parser = RequestParser(self._options, peer[0] if isinstance(peer, tuple) else "", self._connections.bodies)
        self.transport.set_write_buffer_limits(self._options.write_buffer_bytes)
        self._connections.add(self)
        if self._connections.closing:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        self._parser.release()
        self._closing = True
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.client_left()

    def data_received(self, data: bytes | memoryview) -> None:
        if self._closing:
            return
        if self._answer is not None or self._full:
            self._held += data
            if len(self._held) > _HELD_BYTES:
                self.transport.pause_reading()
            return
        self._parser.feed(data)
        self._advance()

    def eof_received(self) -> None:
        """The client sends nothing more: during an answer it has left, as far as anyone can tell; otherwise the transport sends what
        it still has and closes."""
        if self._answer is not None:
            self.transport.abort()

    def pause_writing(self) -> None:
        self._full = True
        if self._answer is not None and self._answer.pausing is not None:
            self._answer.pausing()

    def resume_writing(self) -> None:
        self._full = False
        if self._answer is None:
            self._advance()
        elif self._answer.resuming is not None:
            self._answer.resuming()

    def expire(self) -> None:
        """The deadline has passed: answer 408 to a request begun, close otherwise."""
        if self._parser.stage in (Stage.HEAD, Stage.BODY) and not self._closing:
            part = "head" if self._parser.stage is Stage.HEAD else "body"
            self._parser.reject(Rejected(408, f"the request's {part} took too long"))
            self._advance()
            return
        unsent = self.transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:
            self._unsent = unsent
            self.deadline_ns = self._clock.monotonic_ns() + self._options.keep_alive_ns
        elif unsent or self._closing:
            self.transport.abort()
        elif self._connections.retiring and self.transport.can_write_eof():
            self._close_softly()
        else:
            self._close()

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come."""
        return self._answer is None and not self._held and self._parser.stage is Stage.BETWEEN and not self._parser.parsed

    def close_if_idle(self) -> None:
        if self.idle:
            self._close()

    def cut(self) -> None:
        self.transport.abort()

    @property
    def parting(self) -> bool:
        """Whether this answer is to be the connection's last."""
        return self._connections.parting

    def answered(self, counted: int) -> None:
        """The request in progress needs nothing more; `counted` bytes of its body are free again."""
        self._connections.answering -= 1
        if counted:
            self._connections.bodies.give_back(counted)

    def send(self, data: bytes, body: bytes = b"", end: bytes = b"") -> None:
        """Hand bytes to the transport in one piece while they are few, a larger body uncopied."""
        if not body:
            self.transport.write(data)
        elif len(body) <= JOINED_BYTES:
            self.transport.write(data + body + end)
        else:
            self.transport.write(data)
            self.transport.write(body)
            self.transport.write(end)

    def finished(self, keep_alive: bool) -> None:
        """The answer in progress was handed to the transport to its end. A connection that was announced as kept is kept, also when
        this server retires meanwhile: its client may already be sending the next request."""
        self._answer = None
        if not keep_alive or self._connections.closing:
            self._close()
        elif not self._advancing:
            self._advance()

    def aborted(self, reset: bool) -> None:
        """The answer in progress ends here, and the client must be able to tell: by the missing end of a length or chunk, or, where
        the end of the connection is the end of the body, by a reset."""
        self._answer = None
        if reset:
            connection: socket.socket = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.transport.abort()
        else:
            self._close()

    def _advance(self) -> None:
        """Answer what can be answered, read what was held back meanwhile, and wait for the rest."""
        self._advancing = True
        parsed = self._parser.parsed
        while self._answer is None and not self._full and not self._closing:
            if parsed:
                self._awaited = None
                self._begin(parsed.pop(0))
            elif self._held:
                data = bytes(self._held)
                self._held.clear()
                self._parser.feed(data)
                self.transport.resume_reading()
            else:
                break
        self._advancing = False
        if self._answer is None and not self._closing:
            self._wait()

    def _begin(self, item: Accepted | Rejected) -> None:
        if isinstance(item, Rejected):
            self._reject(item)
            return
        self.deadline_ns = _NEVER
        self._connections.answering += 1
        answer = self._answer = _Answer(self, item)
        try:
            self._application(item.request, answer)
        except Exception:  # noqa: BLE001 - the application is not this module's code; its faults must not end the server
            _log.exception("the application failed on %s %s", item.request.method.decode(), item.request.path.decode())
            answer.fail()

    def _wait(self) -> None:
        stage = self._parser.stage
        if stage is Stage.BODY and self._parser.expects_continue:
            self._parser.expects_continue = False
            self.transport.write(_CONTINUE)
        if stage is not self._awaited:
            self._awaited = stage
            self._unsent = _NEVER
            self.deadline_ns = self._clock.monotonic_ns() + self._patience_ns(stage)

    def _patience_ns(self, stage: Stage) -> int:
        if stage is Stage.HEAD:
            return self._options.header_timeout_ns
        return self._options.body_timeout_ns if stage is Stage.BODY else self._connections.idle_ns

    def _reject(self, rejected: Rejected) -> None:
        body = _error("invalid_request_error", rejected.reason)
        headers = [_JSON]
        if rejected.status == 405:
            headers.append(_ALLOW)
        elif rejected.status == 503:
            headers.append(_SOON)
        self.send(render(status_line(rejected.status), headers, _framing(len(body), close=True)), body)
        self._closing = True
        self._linger()

    def _close_softly(self) -> None:
        """Say that nothing more will be answered and let the client close: a request that is on its way meets a clean end, which
        clients take for a kept connection gone stale, and not a reset."""
        self._closing = True
        self._linger()

    def _linger(self) -> None:
        self.deadline_ns = self._clock.monotonic_ns() + _LINGER_NS
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self.deadline_ns = self._clock.monotonic_ns() + self._options.keep_alive_ns
        self.transport.close()


class _Answer:
    """The `Response` to one request; detached from its connection when it ends, so that late calls reach nothing."""

    __slots__ = ("_bodiless", "_chunked", "_connection", "_keep_alive", "_request", "_started", "disconnected", "pausing", "resuming")

    def __init__(self, connection: ServerProtocol, accepted: Accepted) -> None:
        self.disconnected: Callable[[], None] | None = None
        self.pausing: Callable[[], None] | None = None
        self.resuming: Callable[[], None] | None = None
        self._connection: ServerProtocol | None = connection
        self._request = accepted
        self._keep_alive = accepted.keep_alive
        self._bodiless = accepted.request.method == b"HEAD"
        self._chunked = False
        self._started = False

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        assert not self._started
        self._keep_alive = self._keep_alive and not connection.parting
        no_body = status in (204, 304)
        length = None if no_body or (self._bodiless and not body) else len(body)
        head = render(status_line(status), headers, self._framing(length))
        self._detach()
        if no_body or self._bodiless:
            connection.send(head)
        else:
            connection.send(head, body)
        connection.finished(self._keep_alive)

    def start(self, status: int, headers: Headers) -> None:
        connection = self._connection
        if connection is None:
            return
        assert not self._started
        self._bodiless = self._bodiless or status in (204, 304)
        self._chunked = self._request.chunked and not self._bodiless
        self._keep_alive = self._keep_alive and (self._chunked or self._bodiless) and not connection.parting
        framing = self._framing(None)
        head = render(status_line(status), headers, framing + b"transfer-encoding: chunked\r\n" if self._chunked else framing)
        self._started = True
        connection.send(head)

    def write(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._bodiless or not data:
            return
        assert self._started
        if not self._chunked:
            connection.send(data)
        elif len(data) <= JOINED_BYTES:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.send(b"%x\r\n" % len(data), data, b"\r\n")

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        assert self._started
        self._detach()
        if self._chunked:
            connection.send(b"0\r\n\r\n")
        connection.finished(self._keep_alive)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self._detach()
            connection.aborted(reset=self._started and not self._chunked)

    def fail(self) -> None:
        """The application raised: 500 while nothing was sent, a cut afterwards."""
        if self._started:
            self.abort()
        else:
            self._keep_alive = False
            self.send(500, [_JSON], _error("internal_error", "internal error"))

    def client_left(self) -> None:
        disconnected = self.disconnected
        self._detach()
        if disconnected is not None:
            disconnected()

    def _detach(self) -> None:
        """Let go of the connection, and of the application: a circle of references would leave every call to the garbage collector,
        measured at 25 us per call."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.answered(self._request.counted)
        self.disconnected = self.pausing = self.resuming = None

    def _framing(self, length: int | None) -> bytes:
        return _framing(length, close=not self._keep_alive, announce=not self._request.chunked)


def _error(kind: str, message: str) -> bytes:
    """An error body of the shape that the clients of every wire format read a message from."""
    return msgspec.json.encode({"error": {"type": kind, "message": message}})


def _framing(length: int | None, *, close: bool, announce: bool = False) -> bytes:
    """The framing headers; a kept connection is announced only to HTTP/1.0 clients."""
    framing = b"" if length is None else b"content-length: %d\r\n" % length
    if close:
        return framing + b"connection: close\r\n"
    return framing + b"connection: keep-alive\r\n" if announce else framing


async def serve(
    application: Application, host: str, port: int, options: ServerOptions, clock: Clock, *, sock: socket.socket | None = None
) -> Server:
    """Listen on `host` and `port` (0: any free one), or on the bound socket `sock`; raises OSError where that is not possible."""
    sockets = await bind(host, port) if sock is None else [sock]
    connections = Connections(clock, options)
    factory = partial(ServerProtocol, application, options, clock, connections)
    try:
        listener = Listener(sockets, factory, lambda: len(connections.open) + listener.arriving < options.max_connections, clock)
    except OSError:
        connections.stop()
        for each in sockets:
            each.close()
        raise
    connections.freed = listener.look_again
    return Server(listener, connections, clock)
