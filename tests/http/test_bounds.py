"""What a server holds in memory has an end: connections, bodies, answers in progress."""

import asyncio
import errno
import socket
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.http.listener import Listener, bind
from holdfast.http.server import Connections, ServerOptions, ServerProtocol, serve
from holdfast.testing import FakeClock

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
LARGE = 100_000


def test_bodies_that_do_not_fit_beside_the_others_are_refused_until_those_are_answered(line: Any) -> None:
    it = line(options=ServerOptions(max_bodies_bytes=2 * LARGE))
    bodies = it.connections.bodies
    for number in range(2):
        it.feed(POST % LARGE + b"a" * LARGE)
        assert bodies.held == LARGE
        it.desk.calls[number][1].send(200, [], b"")
        assert bodies.held == 0
    it.feed(POST % (2 * LARGE) + b"a" * 2 * LARGE)
    assert bodies.held == 2 * LARGE
    other = beside(it)
    other.data_received(POST % LARGE + b"a" * LARGE)
    assert other.transport.sent.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1\r\n" in other.transport.sent
    small = beside(it)
    small.data_received(POST % 10 + b"a" * 10)
    assert len(it.desk.calls) == 4
    it.protocol.connection_lost(None)
    assert bodies.held == 0


@pytest.mark.parametrize("end", ["the client leaves", "it takes too long", "it turns out to be broken"])
def test_a_body_that_never_becomes_whole_is_given_back(line: Any, end: str) -> None:
    it = line()
    it.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % LARGE + b"a" * LARGE)
    assert it.connections.bodies.held == LARGE
    if end == "the client leaves":
        it.protocol.connection_lost(None)
    elif end == "it takes too long":
        it.clock.advance(61 * SECOND)
    else:
        it.feed(b"nonsense\r\n")
    assert it.connections.bodies.held == 0
    assert it.desk.calls == []


def test_bodies_that_wait_for_their_turn_count_and_are_given_back(line: Any) -> None:
    it = line()
    it.feed(GET + POST % LARGE + b"a" * LARGE)
    assert (it.connections.answering, it.connections.bodies.held) == (1, LARGE)
    it.protocol.connection_lost(None)
    assert (it.connections.answering, it.connections.bodies.held) == (0, 0)


def beside(it: Any) -> ServerProtocol:
    """Another connection of the same server."""
    protocol = ServerProtocol(it.desk, ServerOptions(), it.clock, it.connections)
    protocol.connection_made(type(it.transport)(protocol))
    return protocol


def test_answers_in_progress_are_counted_however_they_end(line: Any) -> None:
    it = line()
    ends = [
        lambda response: response.send(200, [], b""),
        lambda response: (response.start(200, []), response.end()),
        lambda response: (response.start(200, []), response.abort()),
    ]
    for number, end in enumerate(ends):
        it.feed(GET)
        assert it.connections.answering == 1
        end(it.desk.calls[number][1])
        assert it.connections.answering == 0


def test_when_connections_become_scarce_answers_are_their_last() -> None:
    clock = FakeClock()
    connections = Connections(clock, ServerOptions(max_connections=8))
    made: list[Any] = [object() for _ in range(8)]
    for connection in made:
        connections.add(connection)
    assert connections.parting
    connections.remove(made[0])
    assert not connections.parting


def test_more_connections_than_allowed_wait_until_one_is_gone(desk: Any, dial: Any) -> None:
    async def main() -> None:
        clock = FakeClock()
        server = await serve(desk, "127.0.0.1", 0, ServerOptions(max_connections=2), clock)
        async with dial(server) as first, dial(server) as second, dial(server) as third:
            for _, writer in (first, second, third):
                writer.write(GET)
            while len(desk.calls) < 2:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert (server.connections, len(desk.calls)) == (2, 2)
            desk.calls[0][1].send(200, [], b"")  # the connection's last: others wait
            while len(desk.calls) < 3:
                await asyncio.sleep(0)
            desk.calls[1][1].send(200, [], b"")
            desk.calls[2][1].send(200, [], b"")
            for reader, _ in (first, second, third):
                assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        await server.close(SECOND)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_machine_without_descriptors_is_asked_again_a_second_later() -> None:
    class Exhausted(socket.socket):
        failures = 1

        def accept(self) -> Any:
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def main() -> None:
        clock = FakeClock()
        (bound,) = await bind("127.0.0.1", 0)
        made: list[asyncio.Protocol] = []

        def factory() -> asyncio.Protocol:
            made.append(asyncio.Protocol())
            return made[-1]

        listener = Listener([Exhausted(fileno=bound.detach())], factory, lambda: True, clock)
        _, writer = await asyncio.open_connection(listener.host, listener.port)
        while not clock.pending:
            await asyncio.sleep(0)
        assert not made
        clock.advance(SECOND)
        while not made:
            await asyncio.sleep(0)
        writer.close()
        listener.stop()
        await listener.arrived()

    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_name_with_two_addresses_listens_on_both() -> None:
    async def main() -> None:
        sockets = await bind("", 0)
        assert {sock.family for sock in sockets} <= {socket.AF_INET, socket.AF_INET6}
        for sock in sockets:
            sock.close()

    asyncio.run(asyncio.wait_for(main(), 30))
