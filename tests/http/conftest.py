"""A transport that records, and real loopback ends, for the tests of the HTTP server and client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import pytest

from holdfast.errors import UpstreamError
from holdfast.execution.upstream import Exchange, Headers, Origin, UpstreamRequest
from holdfast.http.message import Application, Request, Response
from holdfast.http.server import Connections, Server, ServerOptions, ServerProtocol, serve
from holdfast.testing.clock import FakeClock


class RecordingTransport(asyncio.Transport):
    """Keeps what is written; `unsent` is what it claims to have in its buffer."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__({"peername": ("192.0.2.1", 4711)})
        self.protocol = protocol
        self.sent = bytearray()
        self.unsent = 0
        self.state = "open"
        self.reading = True

    def write(self, data: bytes) -> None:
        assert self.state == "open"
        self.sent += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.state = "half-closed"

    def is_closing(self) -> bool:
        return self.state in ("closed", "aborted")

    def close(self) -> None:
        self._lose("closed")

    def abort(self) -> None:
        self._lose("aborted")

    def _lose(self, state: str) -> None:
        if not self.is_closing():
            self.state = state
            self.protocol.connection_lost(None)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Desk:
    """An application that takes requests and lets the test answer them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Request, Response]] = []
        self.events: list[str] = []

    def __call__(self, request: Request, response: Response) -> None:
        number = len(self.calls)
        self.calls.append((request, response))
        response.disconnected = lambda: self.events.append(f"left {number}")
        response.pausing = lambda: self.events.append(f"pause {number}")
        response.resuming = lambda: self.events.append(f"resume {number}")

    @property
    def paths(self) -> list[bytes]:
        return [request.path for request, _ in self.calls]


class Line:
    """A server's connection on a recording transport and a fake clock."""

    def __init__(self, application: Application | None = None, options: ServerOptions | None = None) -> None:
        self.desk = Desk()
        self.clock = FakeClock()
        self.connections = Connections(self.clock, options or ServerOptions())
        self.protocol = ServerProtocol(application or self.desk, options or ServerOptions(), self.clock, self.connections)
        self.transport = RecordingTransport(self.protocol)
        self.protocol.connection_made(self.transport)

    def feed(self, data: bytes) -> None:
        self.protocol.data_received(data)

    @property
    def sent(self) -> bytes:
        return bytes(self.transport.sent)


class Heard:
    """A `Receiver` that writes down what it hears; `over` resolves with the end."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self.pieces = 0
        self.ends: list[UpstreamError | None] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exchange: Exchange | None = None

    def response_started(self, status: int, headers: Headers) -> None:
        assert not self.status
        assert not self.ends
        self.status, self.headers = status, list(headers)
        self.started.set_result(None)

    def response_data(self, data: bytes) -> None:
        assert self.status
        assert data
        assert not self.ends
        self.body += data
        self.pieces += 1

    def response_ended(self) -> None:
        self.ends.append(None)
        self.over.set_result(None)

    def response_failed(self, error: UpstreamError) -> None:
        self.ends.append(error)
        self.over.set_result(None)

    @property
    def error(self) -> UpstreamError | None:
        assert len(self.ends) == 1
        return self.ends[0]


class Peer:
    """A scripted upstream: each connection gets the next script, a coroutine over its streams; heads read are kept."""

    def __init__(self, *scripts: Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], object]) -> None:
        self.scripts = list(scripts)
        self.heads: list[bytes] = []
        self.connections = 0
        self.failures: list[BaseException] = []

    async def read_request(self, reader: asyncio.StreamReader) -> bytes:
        """The next request's head; its body is read and dropped."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        for line in head.split(b"\r\n"):
            if line.startswith(b"content-length: "):
                await reader.readexactly(int(line[16:]))
        return head

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        try:
            await script(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - reported by the fixture; a raise here would be lost in a task
            self.failures.append(error)
        finally:
            writer.close()


@asynccontextmanager
async def _upstream(*scripts: object, tls: object = None) -> AsyncIterator[tuple[Peer, Origin]]:
    peer = Peer(*scripts)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield peer, Origin("localhost" if tls else "127.0.0.1", server.sockets[0].getsockname()[1], tls is not None)
    finally:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await server.wait_closed()
        assert not peer.failures


@asynccontextmanager
async def _server(application: Application, options: ServerOptions | None = None, clock: FakeClock | None = None) -> AsyncIterator[Server]:
    clock = clock or FakeClock()
    server = await serve(application, "127.0.0.1", 0, options or ServerOptions(), clock)
    try:
        yield server
    finally:
        closing = asyncio.ensure_future(server.close(1))
        await asyncio.sleep(0)
        clock.advance(1)
        await closing


@asynccontextmanager
async def _dial(server: Server, limit: int = 2**16) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=limit)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def _request(origin: Origin, **changes: object) -> UpstreamRequest:
    fields: dict[str, object] = {"method": b"POST", "target": b"/v1", "headers": (), "body": b"{}", "connect_timeout_ns": 5_000_000_000}
    return UpstreamRequest(origin=origin, **(fields | changes))


@pytest.fixture(scope="session")
def line() -> Callable[..., Line]:
    return Line


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def running() -> Callable[..., AbstractAsyncContextManager[Server]]:
    """A real server on loopback with a fake clock."""
    return _server


@pytest.fixture
def dial() -> Callable[..., AbstractAsyncContextManager[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    """A raw client's connection to a real server."""
    return _dial


@pytest.fixture
def upstream() -> Callable[..., AbstractAsyncContextManager[tuple[Peer, Origin]]]:
    """A real scripted upstream on loopback."""
    return _upstream


@pytest.fixture(scope="session")
def heard() -> Callable[[], Heard]:
    return Heard


@pytest.fixture
def request_to() -> Callable[..., UpstreamRequest]:
    return partial(_request)
