"""HTTP/1.1 client: an `Upstream` with a pool of kept connections per origin, TLS, and one retry of a connection gone stale."""

import asyncio
import socket
import ssl
from functools import partial
from typing import cast

from msgspec import Struct

from holdfast.clock import SECOND, Clock, Timer
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, TimedOut, UpstreamError, Withdrawn
from holdfast.execution.upstream import BodySource, Exchange, Origin, Receiver, UpstreamRequest
from holdfast.http.answers import AnswerParser
from holdfast.http.head import JOINED_BYTES, render
from holdfast.http.reading import ReadBuffer, ReadingProtocol
from holdfast.http.sending import Sending

_EYEBALLS_SECONDS = 0.25
"""Head start of one address family before the other is tried as well (RFC 8305, section 5)."""

_STALE_NS = SECOND
"""A kept connection that the upstream had closed says so within a round trip. One that ends later may have carried the request to an
upstream that worked on it: sent once more, it would be billed twice."""

_CLOSED = "the client is closed"
_ANSWERED = UpstreamRequest(origin=Origin("", 0, False), method=b"", target=b"", headers=(), body=b"", connect_timeout_ns=0)
_ALWAYS_WITH_LENGTH = frozenset((b"POST", b"PUT", b"PATCH"))


class ClientOptions(Struct, frozen=True, kw_only=True):
    """max_header_bytes: of an answer's head, and of chunk extensions and trailers in a row. max_idle: connections kept per origin.
    idle: how long one is kept without a request."""

    max_header_bytes: int = 64 * 1024
    max_idle: int = 256
    idle_ns: int = 60 * SECOND


class Client:
    """Sends requests over kept connections, the most recently used first; `tls` defaults to the system's trust store.

    A request that meets a connection gone stale is sent once more, before any answer byte.
    """

    def __init__(self, options: ClientOptions, clock: Clock, tls: ssl.SSLContext | None = None) -> None:
        self._options = options
        self._clock = clock
        self.now_ns = clock.monotonic_ns
        self._tls = tls
        self._buffer = ReadBuffer()
        self._pools: dict[Origin, _Pool] = {}
        self._open: set[_Connection] = set()
        self._connecting: dict[asyncio.Task[None], _Call] = {}
        self._sweep: Timer | None = None
        self._closed = False
        self._emptied: asyncio.Future[None] | None = None

    def send(self, request: UpstreamRequest, receiver: Receiver) -> Exchange:
        """Start a request; raises ValueError for a header with a line break in it."""
        pool = self._pools.get(request.origin)
        if pool is None:
            pool = self._pools[request.origin] = _Pool(request.origin)
        call = _Call(self, request, receiver, _head(request, pool.host_line))
        connection = self._kept(pool, request)
        if connection is None:
            self.connect(call)
        else:
            connection.begin(call)
        return call

    def _kept(self, pool: "_Pool", request: UpstreamRequest) -> "_Connection | None":
        """A kept connection for the request; none that may have gone stale for what could not be sent once more."""
        idle = pool.idle
        if request.upload is not None:
            return None
        used_since_ns = self.now_ns() - _STALE_NS if request.once else 0
        while idle and idle[-1].idle_since_ns >= used_since_ns:
            connection = idle.pop()
            if connection.usable():
                return connection
        return None

    async def close(self) -> None:
        """Cut every connection; calls in progress fail."""
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        for call in list(self._connecting.values()):
            call.fail(ConnectFailed(_CLOSED))
        for connection in self._open:
            connection.drop()
        if self._connecting:
            await asyncio.wait(self._connecting)
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    def connect(self, call: "_Call") -> None:
        """Open a connection for the call."""
        if self._closed:
            call.fail(ConnectFailed(_CLOSED))
            return
        task = asyncio.get_running_loop().create_task(self._connect(call))
        self._connecting[task] = call
        task.add_done_callback(self._connecting.pop)
        call.connecting(task, self._clock)

    def opened(self, connection: "_Connection") -> None:
        self._open.add(connection)

    def lost(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        idle = self._pools[connection.origin].idle
        if connection in idle:
            idle.remove(connection)
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    def keep(self, connection: "_Connection") -> None:
        """Take a connection back for the next call."""
        idle = self._pools[connection.origin].idle
        if len(idle) >= self._options.max_idle or self._closed:
            connection.drop()
            return
        connection.idle_since_ns = self._clock.monotonic_ns()
        idle.append(connection)
        if self._sweep is None:
            self._sweep = self._clock.call_later(self._options.idle_ns, self._drop_old)

    def _drop_old(self) -> None:
        oldest_kept = self._clock.monotonic_ns() - self._options.idle_ns
        kept = 0
        for pool in self._pools.values():
            for connection in pool.idle:
                if connection.idle_since_ns <= oldest_kept:
                    connection.drop()
            pool.idle = [connection for connection in pool.idle if connection.idle_since_ns > oldest_kept]
            kept += len(pool.idle)
        self._sweep = self._clock.call_later(self._options.idle_ns // 4, self._drop_old) if kept else None

    async def _connect(self, call: "_Call") -> None:
        origin = call.request.origin
        loop = asyncio.get_running_loop()
        connect = loop.create_connection
        if isinstance(loop, asyncio.BaseEventLoop):  # uvloop tries addresses only one after the other
            connect = partial(connect, happy_eyeballs_delay=_EYEBALLS_SECONDS)
        try:
            _, connection = await connect(
                lambda: _Connection(self, origin, AnswerParser(self._options.max_header_bytes), self._buffer),
                origin.host,
                origin.port,
                ssl=self._trust() if origin.tls else None,
            )
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver or certificate can hold
            call.not_connecting()
            call.fail(ConnectFailed(f"no connection to {origin.authority}: {_reason(error)}"))
            return
        call.not_connecting()
        if call.ended:
            connection.drop()
        elif call.request.withdrawn():
            connection.drop()
            call.fail(Withdrawn(f"nothing was sent to {origin.authority}"))
        else:
            connection.begin(call)

    def _trust(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls


class _Pool:
    """What is known of one origin; `idle` connections, the most recently used last."""

    __slots__ = ("host_line", "idle")

    def __init__(self, origin: Origin) -> None:
        self.idle: list[_Connection] = []
        try:
            self.host_line = b"host: %b\r\n" % origin.authority.encode("idna")
        except UnicodeError:  # no such name can be looked up: connecting will fail and say so
            self.host_line = b""


class _Call:
    """The `Exchange` of one request; `ended` once its receiver must not be called any more."""

    __slots__ = ("_client", "_connect_timer", "_task", "connection", "ended", "head", "paused", "receiver", "request")

    def __init__(self, client: Client, request: UpstreamRequest, receiver: Receiver, head: bytes) -> None:
        self.request = request
        self.receiver = receiver
        self.head = head
        self.connection: _Connection | None = None
        self.paused = False
        self.ended = False
        self._client = client
        self._task: asyncio.Task[None] | None = None
        self._connect_timer: Timer | None = None

    def pause(self) -> None:
        self.paused = True
        if self.connection is not None:
            self.connection.pause()

    def resume(self) -> None:
        self.paused = False
        if self.connection is not None:
            self.connection.resume()

    def cancel(self) -> None:
        self.ended = True
        if self._task is not None:
            self._task.cancel()
            self.not_connecting()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()

    def answered(self) -> None:
        """An answer came, so the request is not sent again: its bytes are not kept until a long stream's end."""
        self.request, self.head = _ANSWERED, b""

    def fail(self, error: UpstreamError) -> None:
        if not self.ended:
            self.cancel()
            self.receiver.response_failed(error)

    def connecting(self, task: asyncio.Task[None], clock: Clock) -> None:
        after_ns = self.request.connect_timeout_ns
        self._task = task
        self._connect_timer = clock.call_later(after_ns, lambda: self.fail(TimedOut("connect", after_ns)))

    def not_connecting(self) -> None:
        """The attempt to connect is over, either way."""
        self._task = None
        if self._connect_timer is not None:
            self._connect_timer.cancel()
            self._connect_timer = None

    def again(self) -> None:
        """Send the request once more, on a fresh connection."""
        self.connection = None
        self._client.connect(self)


class _Connection(ReadingProtocol):
    """One connection, carrying one call at a time. A receiver is called only after a read was parsed, and may cancel or send anew."""

    def __init__(self, client: Client, origin: Origin, parser: AnswerParser, buffer: ReadBuffer) -> None:
        super().__init__(buffer)
        self.origin = origin
        self.idle_since_ns = 0
        self._client = client
        self._parser = parser
        self._transport: asyncio.Transport
        self._call: _Call | None = None
        self._begun_ns = 0
        self._fresh = True  # its first call has not ended
        self._started = False  # the answer's head was delivered
        self._upload: Sending | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._client.opened(self)

    def begin(self, call: _Call) -> None:
        self._call = call
        self._started = False
        self._begun_ns = self._client.now_ns()
        self._parser.expect(call.request.method)
        call.connection = self
        upload = call.request.upload
        if upload is not None:
            self._begin_upload(call, upload)
            return
        body = call.request.body
        if len(body) <= JOINED_BYTES:
            self._transport.write(call.head + body)
        else:
            self._transport.write(call.head)
            self._transport.write(body)
        if call.paused:
            self._transport.pause_reading()

    def _begin_upload(self, call: _Call, upload: BodySource) -> None:
        self._transport.write(call.head)
        if call.paused:
            self._transport.pause_reading()
        self._upload = Sending(self._transport, upload)
        upload.start(self._upload)

    def pause_writing(self) -> None:
        if self._upload is not None:
            self._upload.pause()

    def resume_writing(self) -> None:
        if self._upload is not None:
            self._upload.resume()

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.stop()

    def usable(self) -> bool:
        return not self._transport.is_closing()

    def pause(self) -> None:
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    def drop(self) -> None:
        """Close at once; a call still in progress fails."""
        self._drop_upload()
        self._transport.abort()

    def abandon(self) -> None:
        """Close at once; the call in progress no longer wants to hear of it."""
        self._call = None
        self.drop()

    def data_received(self, data: bytes | memoryview) -> None:
        call = self._call
        if call is None:
            self.drop()  # nobody asked for anything
            return
        parser = self._parser
        error = parser.feed(data)
        if parser.headed and not self._started:
            self._started = True
            call.answered()
            call.receiver.response_started(parser.status, parser.headers)
        body = parser.take_body()
        if body and self._call is call:
            call.receiver.response_data(body)
        if self._call is not call:
            return  # cancelled by its receiver
        if parser.complete:
            self._finish(call, error)
        elif error is not None:
            call.fail(GarbageReceived(f"{self.origin.authority} sent what is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        parser = self._parser
        self._drop_upload()
        parser.release()
        self._client.lost(self)
        call, self._call = self._call, None
        if call is None:
            return
        if parser.silent and not (self._fresh or call.request.once) and self._client.now_ns() - self._begun_ns < _STALE_NS:
            call.again()
        elif parser.headed and not parser.framed and exc is None:
            call.ended = True
            call.receiver.response_ended()
        else:
            when = "before the answer" if parser.silent else "before the answer's end"
            call.fail(ConnectionCut(f"{self.origin.authority} closed the connection {when}"))

    def _finish(self, call: _Call, error: str | None) -> None:
        call.ended = True
        call.connection = None
        self._call = None
        self._fresh = False
        upload = self._upload
        if error is None and (upload is None or upload.ended) and self._parser.reusable() and self.usable():
            self._upload = None
            if call.paused:
                self._transport.resume_reading()
            self._client.keep(self)
        else:
            self.drop()
        call.receiver.response_ended()


def _head(request: UpstreamRequest, host_line: bytes) -> bytes:
    if request.upload is not None:
        framing = _upload_framing(request.upload)
    else:
        length = len(request.body)
        framing = b"content-length: %d\r\n" % length if length or request.method in _ALWAYS_WITH_LENGTH else b""
    return render(b"%b %b HTTP/1.1\r\n" % (request.method, request.target), request.headers, host_line + framing)


def _upload_framing(upload: BodySource) -> bytes:
    return b"transfer-encoding: chunked\r\n" if upload.length is None else b"content-length: %d\r\n" % upload.length


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return "connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
