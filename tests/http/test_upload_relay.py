"""Uploads on their way to an upstream, and through server and client together."""

import asyncio
import hashlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectionCut, UpstreamError
from holdfast.execution.upstream import Headers, Origin, UpstreamRequest
from holdfast.http.client import Client, ClientOptions
from holdfast.http.message import Request, Response
from holdfast.http.server import ServerOptions, serve
from holdfast.system_clock import SystemClock
from holdfast.testing.clock import FakeClock

HEAD = b"POST /tools/x HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n"
TOO_LARGE = b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig"


def below_tools(path: bytes) -> bool:
    return path.startswith(b"/tools/")


class Source:
    """A `BodySource` under the test's hand."""

    def __init__(self, length: int | None = None) -> None:
        self.length = length
        self.sink: Any = None
        self.state = "waiting"

    def start(self, sink: Any) -> None:
        self.sink, self.state = sink, "giving"

    def pause(self) -> None:
        self.state = "paused"

    def resume(self) -> None:
        self.state = "giving"

    def stop(self) -> None:
        self.state = "stopped"


async def settle(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("length", [6, None])
def test_the_client_sends_pieces_in_the_framing_that_fits(upstream: Any, heard: Any, request_to: Any, length: int | None) -> None:
    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer.heads.append(await reader.readuntil(b"\r\n\r\n"))
        end = b"def" if length else b"0\r\n\r\n"
        peer.heads.append(await reader.readuntil(end))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        peer.heads.append(await reader.readuntil(b"\r\n\r\n"))  # the next request, on the same connection
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async def main() -> None:
        async with upstream(script) as (peer, origin):
            client, source, first, second = Client(ClientOptions(), SystemClock()), Source(length), heard(), heard()
            client.send(request_to(origin, body=b"", upload=source), first)
            await settle(lambda: source.sink is not None)
            source.sink.body_data(b"abc")
            source.sink.body_data(b"def")
            source.sink.body_ended()
            await first.over
            client.send(request_to(origin), second)
            await second.over
            assert (first.body, second.body, peer.connections) == (b"ok", b"ok", 1)
            expected = b"content-length: 6\r\n" if length else b"transfer-encoding: chunked\r\n"
            assert expected in peer.heads[0]
            assert peer.heads[1] == (b"abcdef" if length else b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
            await client.close()

    asyncio.run(main())


def test_an_upload_takes_no_kept_connection(upstream: Any, heard: Any, request_to: Any) -> None:
    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await peer.read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def main() -> None:
        async with upstream(script) as (peer, origin):
            client, source, first, second = Client(ClientOptions(), SystemClock()), Source(1), heard(), heard()
            client.send(request_to(origin), first)
            await first.over
            client.send(request_to(origin, body=b"", upload=source), second)
            await settle(lambda: source.sink is not None)
            source.sink.body_data(b"a")
            source.sink.body_ended()
            await second.over
            assert second.error is None and peer.connections == 2
            await client.close()

    asyncio.run(main())


def test_a_slow_upstream_pauses_the_source(upstream: Any, heard: Any, request_to: Any) -> None:
    go_on = asyncio.Event()

    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await reader.readuntil(b"\r\n\r\n")
        size = 0
        while size < peer.expected:
            size += len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def main() -> None:
        async with upstream(script) as (peer, origin):
            client, source, receiver = Client(ClientOptions(), SystemClock()), Source(None), heard()
            source.length = peer.expected = 64 << 20
            client.send(request_to(origin, body=b"", upload=source), receiver)
            await settle(lambda: source.sink is not None)
            sent = 0
            while source.state == "giving":
                source.sink.body_data(b"a" * 65536)
                sent += 65536
            assert sent < 32 << 20
            go_on.set()
            while sent < peer.expected:
                await settle(lambda: source.state == "giving")
                source.sink.body_data(b"a" * 65536)
                sent += 65536
            source.sink.body_ended()
            await receiver.over
            assert receiver.error is None and receiver.status == 200
            await client.close()

    asyncio.run(main())


def test_an_answer_before_the_end_of_the_upload_is_heard(upstream: Any, heard: Any, request_to: Any) -> None:
    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(TOO_LARGE)
        while await reader.read(1 << 20):
            pass

    async def main() -> None:
        async with upstream(script) as (_, origin):
            client, source, receiver = Client(ClientOptions(), SystemClock()), Source(1 << 30), heard()
            client.send(request_to(origin, body=b"", upload=source), receiver)
            await settle(lambda: source.sink is not None)
            source.sink.body_data(b"a" * 65536)
            await receiver.over
            assert (receiver.status, bytes(receiver.body), receiver.error) == (413, b"big", None)
            assert source.state == "stopped"
            await client.close()

    asyncio.run(main())


def test_the_answer_of_an_upstream_that_reads_no_further_and_resets_is_heard_all_the_same(heard: Any, request_to: Any) -> None:
    """Its answer lies in the buffer of a socket that can be written to no more."""
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        connection.recv(1 << 16, socket.MSG_PEEK)  # what is not read when it closes makes it a reset
        connection.sendall(TOO_LARGE)
        connection.close()

    async def main() -> None:
        client, source, receiver = Client(ClientOptions(), SystemClock()), Source(1 << 30), heard()
        client.send(request_to(Origin("127.0.0.1", listening.getsockname()[1], False), body=b"", upload=source), receiver)
        await settle(lambda: source.sink is not None)
        answer()  # while this loop reads nothing
        source.sink.body_data(b"a" * 65536)
        await receiver.over
        assert (receiver.status, bytes(receiver.body), receiver.error) == (413, b"big", None)
        assert source.state == "stopped"
        await client.close()

    with listening:
        asyncio.run(main())


def test_cancelling_stops_the_source(upstream: Any, heard: Any, request_to: Any) -> None:
    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        peer.heads.append(await reader.read())

    async def main() -> None:
        async with upstream(script) as (peer, origin):
            client, source, receiver = Client(ClientOptions(), SystemClock()), Source(None), heard()
            exchange = client.send(request_to(origin, body=b"", upload=source), receiver)
            await settle(lambda: source.sink is not None)
            source.sink.body_data(b"abc")
            await asyncio.sleep(0)
            exchange.cancel()
            assert source.state == "stopped" and not receiver.ends
            await settle(lambda: bool(peer.heads))
            assert not peer.heads[0].endswith(b"0\r\n\r\n")
            await client.close()

    asyncio.run(main())


def test_an_upstream_that_cuts_an_upload_fails_it(upstream: Any, heard: Any, request_to: Any) -> None:
    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def main() -> None:
        async with upstream(script) as (_, origin):
            client, source, receiver = Client(ClientOptions(), SystemClock()), Source(None), heard()
            client.send(request_to(origin, body=b"", upload=source), receiver)
            await receiver.over
            assert isinstance(receiver.error, ConnectionCut) and source.state == "stopped"
            await client.close()

    asyncio.run(main())


class Relay:
    """Relays one request through the client as the gateway does."""

    def __init__(self, request: Request, response: Response, client: Client, origin: Origin) -> None:
        self.response = response
        asked = UpstreamRequest(
            origin=origin,
            method=request.method,
            target=request.path,
            headers=(),
            body=request.body,
            connect_timeout_ns=5 * SECOND,
            upload=request.upload,
        )
        exchange = client.send(asked, self)
        response.disconnected, response.pausing, response.resuming = exchange.cancel, exchange.pause, exchange.resume

    def response_started(self, status: int, headers: Headers) -> None:
        length = dict(headers).get(b"content-length")
        self.response.start(status, (), None if length is None else int(length))

    def response_data(self, data: bytes) -> None:
        self.response.write(data)

    def response_ended(self) -> None:
        self.response.end()

    def response_failed(self, error: UpstreamError) -> None:
        self.response.abort()


def echo(request: Request, response: Response) -> None:
    """Answers with what it is sent, while it comes."""
    upload = request.upload
    assert upload is not None
    response.start(200, (), upload.length)

    class Echo:
        def body_data(self, data: bytes) -> None:
            response.write(data)

        def body_ended(self) -> None:
            response.end()

    response.pausing, response.resuming = upload.pause, upload.resume
    upload.start(Echo())


async def read_hash(reader: asyncio.StreamReader, length: int | None) -> str:
    """The hash of an answer's body."""
    got = hashlib.sha256()
    if length is not None:
        for _ in range(length // 4096):
            got.update(await reader.readexactly(4096))
    else:
        while (count := int(await reader.readline(), 16)) > 0:
            got.update(await reader.readexactly(count))
            await reader.readexactly(2)
    return got.hexdigest()


async def send_pieces(writer: asyncio.StreamWriter, piece: bytes, times: int, end: bytes) -> None:
    for _ in range(times):
        writer.write(piece)
        await writer.drain()
    writer.write(end)


@pytest.mark.parametrize("length", [8 << 20, None])
def test_an_upload_and_its_echo_pass_both_ways_at_once_byte_for_byte(dial: Any, length: int | None) -> None:
    size, piece = 8 << 20, bytes(range(256)) * 256

    async def main() -> None:
        clock = FakeClock()
        tool = await serve(echo, "127.0.0.1", 0, ServerOptions(), clock, relayed=below_tools)
        client, origin = Client(ClientOptions(), SystemClock()), Origin("127.0.0.1", tool.port, False)

        def relay(request: Request, response: Response) -> None:
            Relay(request, response, client, origin)

        gateway = await serve(relay, "127.0.0.1", 0, ServerOptions(), clock, relayed=below_tools)
        async with dial(gateway) as (reader, writer):
            writer.write(HEAD % (b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % size))
            pieces, end = (b"%x\r\n%b\r\n" % (len(piece), piece), b"0\r\n\r\n") if length is None else (piece, b"")
            sending = asyncio.create_task(send_pieces(writer, pieces, size // len(piece), end))
            head = await reader.readuntil(b"\r\n\r\n")
            assert (b"content-length: %d\r\n" % size if length else b"transfer-encoding: chunked") in head
            assert await read_hash(reader, length) == hashlib.sha256(piece * (size // len(piece))).hexdigest()
            await sending
        await client.close()
        for server in (gateway, tool):
            closing = asyncio.ensure_future(server.close(1))
            await asyncio.sleep(0)
            clock.advance(1)
            await closing

    asyncio.run(main())
