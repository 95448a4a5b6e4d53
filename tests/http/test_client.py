"""Client: what a receiver hears for every way an upstream can behave, and which connections are used again."""

import asyncio
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, TimedOut, Withdrawn
from holdfast.execution.upstream import Origin
from holdfast.http.client import Client, ClientOptions
from holdfast.testing.clock import FakeClock

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answering(*answers: bytes) -> Any:
    """A script: reads a request, writes an answer, for each of them; then closes."""

    async def script(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await peer.read_request(reader)
            writer.write(answer)

    return script


async def forever(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await peer.read_request(reader)
        writer.write(OK)


async def until_eof(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await peer.read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert await reader.read() == b""
    peer.heads.append(b"left")


async def call(client: Client, request: Any, heard: Any) -> Any:
    """Send and hear it to its end."""
    ear = heard()
    ear.exchange = client.send(request, ear)
    await asyncio.wait_for(ear.over, 5)
    return ear


def with_client(use: Any, clock: FakeClock | None = None, options: ClientOptions | None = None) -> None:
    async def main() -> None:
        client = Client(options or ClientOptions(), clock or FakeClock())
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(main())


def test_a_call_goes_out_and_its_answer_comes_back_unchanged(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        head = b"HTTP/1.1 429 Too Many\r\nX-A: b\r\nx-a: c\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = head + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
        async with upstream(answering(answer)) as (peer, origin):
            headers = [(b"x-b", b"1"), (b"x-b", b"2"), (b"host", b"evil"), (b"transfer-encoding", b"chunked")]
            ear = await call(client, request_to(origin, target=b"/v1/x?y=%20", headers=headers, body=b"{}"), heard)
            assert peer.heads == [
                b"POST /v1/x?y=%%20 HTTP/1.1\r\nx-b: 1\r\nx-b: 2\r\nhost: %b\r\ncontent-length: 2\r\n\r\n" % origin.authority.encode()
            ]
            assert (ear.status, ear.body, ear.error, ear.pieces) == (429, b"ok", None, 1)
            assert ear.headers == [(b"x-a", b"b"), (b"x-a", b"c"), (b"content-encoding", b"gzip"), (b"transfer-encoding", b"chunked")]

    with_client(use)


def test_a_connection_is_used_again_and_a_large_body_arrives_whole(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(forever) as (peer, origin):
            for size in (0, 10, 20_000, 3_000_000):
                assert (await call(client, request_to(origin, body=b"b" * size), heard)).error is None
            assert peer.connections == 1
            assert [b"content-length: %d\r\n" % size in head for size, head in zip((0, 10, 20_000, 3_000_000), peer.heads, strict=True)]

    with_client(use)


def test_the_most_recently_used_connection_is_taken_first(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(forever) as (peer, origin):
            await asyncio.gather(*(call(client, request_to(origin), heard) for _ in range(3)))
            assert peer.connections == 3
            newest = client._pools[origin].idle[-1]
            await call(client, request_to(origin), heard)
            assert client._pools[origin].idle[-1] is newest

    with_client(use)


def test_idle_connections_are_bounded_in_number_and_age(upstream: Any, heard: Any, request_to: Any) -> None:
    clock = FakeClock()

    async def use(client: Client) -> None:
        async with upstream(forever) as (_, origin):
            await asyncio.gather(*(call(client, request_to(origin), heard) for _ in range(5)))
            assert len(client._pools[origin].idle) == 3
            clock.advance(50 * SECOND)
            await call(client, request_to(origin), heard)
            clock.advance(30 * SECOND)
            assert len(client._pools[origin].idle) == 1
            clock.advance(100 * SECOND)
            assert client._pools[origin].idle == []
            while client._open:
                await asyncio.sleep(0)
            assert clock.pending == 0

    with_client(use, clock, ClientOptions(max_idle=3))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\n\r\nok", b"ok"),
        (OK + b"surplus", b"ok"),
        (OK + OK, b"ok"),
    ],
)
def test_some_answers_are_whole_but_end_their_connection(upstream: Any, heard: Any, request_to: Any, answer: bytes, body: bytes) -> None:
    async def use(client: Client) -> None:
        async with upstream(answering(answer), forever) as (peer, origin):
            ear = await call(client, request_to(origin), heard)
            assert (ear.status, ear.body, ear.error) == (200, body, None)
            await call(client, request_to(origin), heard)
            assert peer.connections == 2

    with_client(use)


def test_answers_without_a_body_leave_the_connection_in_use(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"
        async with upstream(answering(head, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK)) as (peer, origin):
            assert (await call(client, request_to(origin, method=b"HEAD", body=b""), heard)).body == b""
            assert (await call(client, request_to(origin), heard)).status == 204
            assert (await call(client, request_to(origin), heard)).body == b"ok"
            assert peer.connections == 1
            assert b"content-length" not in peer.heads[0]

    with_client(use)


def test_garbage_after_an_answer_to_head_ends_the_connection(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz"
        async with upstream(answering(answer, OK), forever) as (peer, origin):
            assert (await call(client, request_to(origin, method=b"HEAD", body=b""), heard)).error is None
            assert (await call(client, request_to(origin), heard)).error is None
            assert peer.connections == 2

    with_client(use)


def test_bytes_on_an_idle_connection_end_it(upstream: Any, heard: Any, request_to: Any) -> None:
    async def chatty(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read_request(reader)
        writer.write(OK)
        await released.wait()
        writer.write(OK)
        assert await reader.read() == b""

    async def use(client: Client) -> None:
        async with upstream(chatty, forever) as (peer, origin):
            await call(client, request_to(origin), heard)
            released.set()
            while client._open:
                await asyncio.sleep(0)
            assert client._pools[origin].idle == []
            assert (await call(client, request_to(origin), heard)).error is None
            assert peer.connections == 2

    released = asyncio.Event()
    with_client(use)


def test_a_request_that_is_withdrawn_while_its_connection_is_made_is_not_sent(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(forever) as (peer, origin):
            ear = await call(client, request_to(origin, withdrawn=lambda: True), heard)
            assert isinstance(ear.error, Withdrawn)
            assert (await call(client, request_to(origin), heard)).body == b"ok"
            assert len(peer.heads) == 1

    with_client(use)


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"", 0, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-le", 0, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 0, b""),
    ],
)
def test_an_answer_cut_short_is_an_error(upstream: Any, heard: Any, request_to: Any, answer: bytes, status: int, body: bytes) -> None:
    async def use(client: Client) -> None:
        async with upstream(answering(answer)) as (peer, origin):
            ear = await call(client, request_to(origin), heard)
            assert isinstance(ear.error, ConnectionCut)
            assert (ear.status, ear.body, peer.connections) == (status, body, 1)
            assert ("before the answer's end" in str(ear.error)) == bool(answer)

    with_client(use)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", 0),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", 200),
    ],
)
def test_what_is_not_http_is_garbage(upstream: Any, heard: Any, request_to: Any, answer: bytes, status: int) -> None:
    async def use(client: Client) -> None:
        async with upstream(answering(answer)) as (_, origin):
            ear = await call(client, request_to(origin), heard)
            assert isinstance(ear.error, GarbageReceived)
            assert ear.status == status

    with_client(use)


def test_a_closed_port_and_an_unknown_name_are_failures_to_connect(heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        listening = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        listening.close()
        await listening.wait_closed()
        refused = await call(client, request_to(Origin("127.0.0.1", port, False)), heard)
        assert isinstance(refused.error, ConnectFailed)
        assert str(refused.error) == f"no connection to 127.0.0.1:{port}: connection refused"
        for name in ("name.invalid", "a" * 70 + ".invalid", "a..b"):
            unknown = await call(client, request_to(Origin(name, 80, False)), heard)
            assert isinstance(unknown.error, ConnectFailed)

    with_client(use)


def test_connecting_ends_at_its_time_out_or_when_cancelled(upstream: Any, heard: Any, request_to: Any) -> None:
    clock = FakeClock()

    async def silent(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def use(client: Client) -> None:
        async with upstream(silent) as (_, plain):
            origin = Origin(plain.host, plain.port, True)  # the TLS handshake never ends
            late, cancelled = heard(), heard()
            client.send(request_to(origin, connect_timeout_ns=SECOND), late)
            client.send(request_to(origin, connect_timeout_ns=SECOND), cancelled).cancel()
            clock.advance(SECOND - 1)
            assert late.ends == []
            clock.advance(1)
            assert isinstance(late.error, TimedOut)
            assert late.error.kind == "connect"
            assert cancelled.ends == []
            assert clock.pending == 0
            for _ in range(100):
                await asyncio.sleep(0)
            assert not client._connecting

    with_client(use, clock)


def test_cancel_closes_at_once_and_nothing_more_is_heard(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(until_eof) as (peer, origin):
            ear = heard()
            exchange = client.send(request_to(origin), ear)
            await asyncio.wait_for(ear.started, 5)
            exchange.cancel()
            exchange.cancel()
            while peer.heads[-1] != b"left":
                await asyncio.sleep(0)
            assert ear.ends == []
            assert client._pools[origin].idle == []

    with_client(use)


def test_a_receiver_may_cancel_and_send_anew_from_within_a_callback(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(answering(OK), forever) as (peer, origin):
            first, second = heard(), heard()

            def started(status: int, headers: Any) -> None:
                exchange.cancel()
                client.send(request_to(origin), second)

            first.response_started = started
            first.response_data = first.ends.append
            exchange = client.send(request_to(origin), first)
            await asyncio.wait_for(second.over, 5)
            assert (first.body, first.ends, second.body) == (b"", [], b"ok")
            assert peer.connections == 2

    with_client(use)


def test_a_paused_answer_is_not_read_until_resumed(upstream: Any, heard: Any, request_to: Any) -> None:
    total = 30_000_000

    async def flood(peer: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await peer.read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        for _ in range(total // 100_000):
            writer.write(b"d" * 100_000)
            if writer.transport.get_write_buffer_size() > 65_536:
                stuck.set()
            await writer.drain()

    async def use(client: Client) -> None:
        async with upstream(flood, forever) as (_, origin):
            ear = heard()
            ear.exchange = client.send(request_to(origin), ear)
            ear.exchange.pause()
            while not ear.exchange.connection:
                await asyncio.sleep(0)
            await asyncio.wait_for(stuck.wait(), 5)
            assert ear.status == 0
            ear.exchange.resume()
            await asyncio.wait_for(ear.started, 5)
            ear.exchange.pause()
            ear.exchange.pause()
            stopped_at = len(ear.body)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(ear.body) - stopped_at <= 128 * 1024
            ear.exchange.resume()
            await asyncio.wait_for(ear.over, 20)
            assert len(ear.body) == total

    stuck = asyncio.Event()
    with_client(use)


def test_an_answer_that_ends_while_paused_leaves_a_connection_that_reads(upstream: Any, heard: Any, request_to: Any) -> None:
    async def use(client: Client) -> None:
        async with upstream(forever) as (peer, origin):
            ear = heard()
            ear.response_started = lambda status, headers: exchange.pause()
            ear.response_data = lambda data: None
            exchange = client.send(request_to(origin), ear)
            await asyncio.wait_for(ear.over, 5)
            assert (await call(client, request_to(origin), heard)).error is None
            assert peer.connections == 1

    with_client(use)


def test_closing_fails_what_is_in_progress_and_all_that_comes_later(upstream: Any, heard: Any, request_to: Any) -> None:
    async def main() -> None:
        client = Client(ClientOptions(), FakeClock())
        async with upstream(until_eof) as (_, origin):
            running, connecting, later = heard(), heard(), heard()
            client.send(request_to(origin), running)
            await asyncio.wait_for(running.started, 5)
            client.send(request_to(origin), connecting)
            await client.close()
            assert isinstance(running.error, ConnectionCut)
            assert isinstance(connecting.error, ConnectFailed)
            client.send(request_to(origin), later)
            assert isinstance(later.error, ConnectFailed)

    asyncio.run(main())


def test_a_header_with_a_line_break_is_never_sent(request_to: Any, heard: Any) -> None:
    async def use(client: Client) -> None:
        with pytest.raises(ValueError, match="line break"):
            client.send(request_to(Origin("127.0.0.1", 9, False), headers=[(b"authorization", b"Bearer key\n")]), heard())

    with_client(use)
