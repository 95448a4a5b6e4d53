"""A server that leaves its socket to a successor: no request fails, whatever its connection was doing."""

import asyncio
import socket
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.http.server import ServerOptions, serve
from holdfast.testing import FakeClock

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
IDLE = 15 * SECOND
TICK = SECOND // 2


def test_an_idle_connection_answers_one_more_request_and_says_that_it_closes(line: Any) -> None:
    it = line()
    it.feed(GET)
    it.desk.calls[0][1].send(200, [], b"one")
    it.connections.retire(IDLE)
    it.clock.advance(IDLE - TICK)
    assert it.transport.state == "open"
    it.feed(GET)
    it.desk.calls[1][1].send(200, [], b"two")
    assert it.sent.endswith(b"connection: close\r\n\r\ntwo")
    assert b"close" not in it.sent[: it.sent.index(b"one")]
    assert it.transport.state == "closed"


def test_a_connection_that_stays_idle_ends_cleanly_and_leaves_closing_to_the_client(line: Any) -> None:
    it = line()
    it.connections.retire(IDLE)
    it.clock.advance(10 * SECOND + TICK)  # it never sent anything: its own deadline is earlier
    assert it.transport.state == "half-closed"
    it.feed(GET)  # too late; a reset would tell the client less
    assert it.transport.state == "half-closed"
    it.clock.advance(2 * SECOND + TICK)
    assert it.transport.state == "aborted"
    assert it.desk.calls == []


def test_a_kept_connection_has_its_time_from_when_the_successor_came(line: Any) -> None:
    it = line()
    it.feed(GET)
    it.desk.calls[0][1].send(200, [], b"")
    it.clock.advance(60 * SECOND)
    it.connections.retire(IDLE)
    it.clock.advance(IDLE - TICK)
    assert it.transport.state == "open"
    it.clock.advance(2 * TICK)
    assert it.transport.state == "half-closed"


def test_a_stream_that_was_announced_as_kept_is_followed_by_one_more_request(line: Any) -> None:
    """Its client may have sent the next request before it could know."""
    it = line()
    it.feed(GET)
    response = it.desk.calls[0][1]
    response.start(200, [])
    it.connections.retire(IDLE)
    response.write(b"hello")
    response.end()
    assert it.transport.state == "open"
    it.feed(GET)
    it.desk.calls[1][1].send(200, [], b"two")
    assert it.sent.endswith(b"connection: close\r\n\r\ntwo")
    assert it.transport.state == "closed"


def test_a_request_that_is_half_sent_is_still_answered(line: Any) -> None:
    it = line()
    it.feed(GET[:10])
    it.connections.retire(IDLE)
    it.feed(GET[10:])
    it.desk.calls[0][1].send(200, [], b"done")
    assert it.sent.endswith(b"connection: close\r\n\r\ndone")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_every_connection_that_reached_the_socket_is_served_by_one_or_the_other(desk: Any, loop: str) -> None:
    """Accepted in the turn in which accepting ends, or not accepted at all: the two places where connections get lost."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            old = await serve(desk, "", 0, ServerOptions(), FakeClock(), sock=listening.dup())
            clients = [socket.create_connection(listening.getsockname()) for _ in range(200)]
            while not old.connections:
                await asyncio.sleep(0)
            new = await serve(desk, "", 0, ServerOptions(), FakeClock(), sock=listening.dup())
            retiring = asyncio.ensure_future(old.retire(IDLE))
            for client in clients:
                client.sendall(GET)
            while len(desk.calls) < 200:
                await asyncio.sleep(0)
            for _, response in desk.calls:
                response.send(200, [], b"done")
            for client in clients:
                client.settimeout(30)
                with client:
                    answer = await asyncio.get_running_loop().run_in_executor(None, client.recv, 1000)
                    assert answer.endswith(b"done")
            await asyncio.wait_for(retiring, 30)
            await new.close(SECOND)
            await old.close(0)

    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(asyncio.wait_for(main(), 30))


def test_a_stop_ends_what_retires(desk: Any, dial: Any) -> None:
    async def main() -> None:
        server = await serve(desk, "127.0.0.1", 0, ServerOptions(), FakeClock())
        async with dial(server) as (reader, writer), dial(server) as (idle, _):
            writer.write(GET)
            while not desk.calls or server.connections < 2:
                await asyncio.sleep(0)
            retiring = asyncio.ensure_future(server.retire(IDLE))
            await asyncio.sleep(0)
            assert not retiring.done()
            closing = asyncio.ensure_future(server.close(SECOND))
            assert await idle.read() == b""
            desk.calls[0][1].send(200, [], b"done")
            assert (await reader.read()).endswith(b"done")
            await asyncio.wait_for(asyncio.gather(retiring, closing), 30)

    asyncio.run(asyncio.wait_for(main(), 30))
