"""Server: order, deadlines, back-pressure, and answers that are well-formed whatever happens."""

import asyncio
import inspect
import json
import logging
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.http.message import Request, Response
from holdfast.http.server import ServerOptions, serve
from holdfast.testing.clock import FakeClock

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
TICK = SECOND // 2


def echo(request: Request, response: Response) -> None:
    response.send(200, [(b"x-path", request.path)], request.body)


def test_a_whole_answer_is_one_piece_with_its_length(line: Any) -> None:
    it = line(echo)
    it.feed(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
    assert it.sent == b"HTTP/1.1 200 OK\r\nx-path: /a\r\ncontent-length: 2\r\n\r\nhi"
    assert it.transport.state == "open"


def test_a_streamed_answer_is_chunked(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    response = it.desk.calls[0][1]
    response.start(200, [(b"content-type", b"text/event-stream")])
    response.write(b"hello")
    response.write(b"")
    response.write(b"b" * 100_000)
    response.end()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    assert it.sent == head + b"5\r\nhello\r\n186a0\r\n" + b"b" * 100_000 + b"\r\n0\r\n\r\n"
    assert it.transport.state == "open"


def test_an_old_client_gets_its_stream_until_the_connection_closes(line: Any) -> None:
    it = line()
    it.feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    response = it.desk.calls[0][1]
    response.start(200, [])
    response.write(b"hello")
    response.end()
    assert it.sent == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello"
    assert it.transport.state == "closed"


@pytest.mark.parametrize(
    ("head", "announced", "state"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"connection: close\r\n", "closed"),
        (b"GET / HTTP/1.0\r\n\r\n", b"connection: close\r\n", "closed"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"connection: keep-alive\r\n", "open"),
    ],
)
def test_the_connection_is_kept_or_closed_as_announced(line: Any, head: bytes, announced: bytes, state: str) -> None:
    it = line(echo)
    it.feed(head)
    assert announced in it.sent
    assert it.transport.state == state


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_where_no_body_may_be_none_is_sent(line: Any, method: bytes, status: int, streamed: bool) -> None:
    it = line()
    it.feed(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n")
    response = it.desk.calls[0][1]
    if streamed:
        response.start(status, [])
        response.write(b"body")
        response.end()
    else:
        response.send(status, [], b"body")
    assert it.sent.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in it.sent
    assert (b"content-length: 4" in it.sent) == (method == b"HEAD" and not streamed)
    it.feed(GET % 2)
    assert it.desk.paths == [b"/", b"/2"]


def test_pipelined_requests_are_served_one_at_a_time_in_order(line: Any) -> None:
    it = line()
    it.feed(GET % 0 + GET % 1 + (GET % 2)[:10])
    it.feed((GET % 2)[10:] + GET % 3)
    for number in range(4):
        assert it.desk.paths == [b"/%d" % each for each in range(number + 1)]
        it.desk.calls[number][1].send(200, [], b"%d" % number)
    assert [piece[:1] for piece in it.sent.split(b"\r\n\r\n")[1:]] == [b"0", b"1", b"2", b"3"]


def test_a_thousand_pipelined_requests_answered_at_once_do_not_nest(line: Any) -> None:
    depths = set()

    def application(request: Request, response: Response) -> None:
        depths.add(len(inspect.stack(0)))
        echo(request, response)

    it = line(application)
    for _ in range(20):
        it.feed(GET % 1 * 50)
    assert it.sent.count(b"HTTP/1.1 200 OK") == 1000
    assert len(depths) == 1


def test_the_good_requests_before_a_bad_one_are_answered_first(line: Any) -> None:
    it = line()
    it.feed(GET % 0 + b"nonsense\r\n\r\n" + GET % 1)
    assert it.sent == b""
    it.desk.calls[0][1].send(200, [], b"")
    assert it.sent.index(b"200 OK") < it.sent.index(b"400 Bad Request")
    assert it.desk.paths == [b"/0"]
    assert it.transport.state == "half-closed"


def test_a_pipelining_client_is_no_longer_read_when_enough_is_held(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    for _ in range(100):
        if it.transport.reading:
            it.feed(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + b"b" * 5000)
    assert not it.transport.reading
    assert len(it.protocol._held) < 80_000
    it.desk.calls[0][1].send(200, [], b"")
    assert it.transport.reading
    assert it.desk.paths == [b"/0", b"/"]


def test_a_client_that_does_not_read_is_not_served_further(line: Any) -> None:
    it = line()
    it.feed(GET % 0 + GET % 1)
    first = it.desk.calls[0][1]
    first.start(200, [])
    it.protocol.pause_writing()
    assert it.desk.events == ["pause 0"]
    first.end()
    assert it.desk.paths == [b"/0"]
    it.protocol.resume_writing()
    assert it.desk.paths == [b"/0", b"/1"]
    it.protocol.pause_writing()
    it.protocol.resume_writing()
    assert it.desk.events == ["pause 0", "pause 1", "resume 1"]


def test_a_client_that_leaves_is_reported_once_and_late_calls_do_nothing(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    response = it.desk.calls[0][1]
    response.start(200, [])
    it.protocol.eof_received()
    assert it.desk.events == ["left 0"]
    sent = it.sent
    response.write(b"late")
    response.end()
    response.abort()
    response.send(200, [], b"late")
    response.start(200, [])
    assert it.sent == sent
    assert it.desk.events == ["left 0"]
    assert not it.connections.open


def test_a_client_that_leaves_after_the_answer_is_not_reported(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    it.desk.calls[0][1].send(200, [], b"")
    it.protocol.connection_lost(None)
    assert it.desk.events == []


def test_expect_continue_is_answered_before_the_body_and_413_instead_of_it(line: Any) -> None:
    it = line(echo, ServerOptions(max_body_bytes=10))
    it.feed(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert it.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    it.feed(b"hi" + b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n")
    assert it.sent.count(b"100 Continue") == 1
    assert b"413" in it.sent


def test_continue_waits_for_the_answer_before_it(line: Any) -> None:
    it = line()
    it.feed(GET % 0 + b"POST /1 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert it.sent == b""
    it.desk.calls[0][1].send(200, [], b"")
    assert it.sent.endswith(b"content-length: 0\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")


def test_a_body_that_is_already_there_needs_no_continue(line: Any) -> None:
    it = line(echo)
    it.feed(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi")
    assert it.sent.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("data", "options", "part"),
    [
        (b"G", ServerOptions(header_timeout_ns=10 * SECOND), "head"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nh", ServerOptions(body_timeout_ns=10 * SECOND), "body"),
    ],
)
def test_a_request_that_dawdles_is_answered_408(line: Any, data: bytes, options: ServerOptions, part: str) -> None:
    it = line(None, options)
    it.feed(data[:-1])
    it.feed(data[-1:])
    it.clock.advance(10 * SECOND - 1)
    assert it.sent == b""
    it.clock.advance(TICK)
    assert it.sent.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert json.loads(it.sent.partition(b"\r\n\r\n")[2])["error"]["message"] == f"the request's {part} took too long"
    assert it.transport.state == "half-closed"
    it.clock.advance(3 * SECOND)
    assert it.transport.state == "aborted"


def test_a_drip_of_bytes_does_not_move_the_deadline(line: Any) -> None:
    it = line()
    for byte in b"GET / HTTP/1.1\r\nHost: x":
        it.feed(bytes((byte,)))
        it.clock.advance(SECOND)
        if it.sent:
            break
    assert it.sent.startswith(b"HTTP/1.1 408")


def test_a_connection_without_a_byte_is_closed_without_a_word(line: Any) -> None:
    it = line()
    it.clock.advance(10 * SECOND + TICK)
    assert (it.transport.state, it.sent) == ("closed", b"")


def test_an_idle_connection_is_closed_after_its_time_but_not_during_an_answer(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    it.clock.advance(3600 * SECOND)
    assert it.transport.state == "open"
    it.desk.calls[0][1].send(200, [], b"")
    it.clock.advance(75 * SECOND - 1)
    assert it.transport.state == "open"
    it.clock.advance(TICK)
    assert it.transport.state == "closed"


def test_unsent_bytes_are_given_time_while_they_become_fewer(line: Any) -> None:
    it = line(echo)
    it.feed(GET % 0)
    for it.transport.unsent in (3000, 2000, 1000):
        it.clock.advance(75 * SECOND + TICK)
        assert it.transport.state == "open"
    it.clock.advance(75 * SECOND + TICK)
    assert it.transport.state == "aborted"


@pytest.mark.parametrize("started", [False, True])
def test_a_failing_application_becomes_500_or_a_cut_and_is_logged_once(line: Any, started: bool, caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request, response: Response) -> None:
        if started:
            response.start(200, [])
        raise RuntimeError("bug")

    it = line(fail)
    with caplog.at_level(logging.ERROR, "holdfast.http"):
        it.feed(b"GET /p?key=secret HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n\r\n")
    assert it.sent.startswith(b"HTTP/1.1 200 OK" if started else b"HTTP/1.1 500 Internal Server Error")
    assert it.transport.state == "closed"
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    assert not it.sent.endswith(b"0\r\n\r\n")


def test_a_header_with_a_line_break_never_reaches_the_client(line: Any, caplog: pytest.LogCaptureFixture) -> None:
    it = line(lambda request, response: response.send(200, [(b"a", b"b\r\nset-cookie: c")], b""))
    it.feed(GET % 0)
    assert b"set-cookie" not in it.sent
    assert it.sent.startswith(b"HTTP/1.1 500")


def test_rejections_are_well_formed_and_final(line: Any) -> None:
    it = line()
    it.feed(b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = it.sent.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 405 Method Not Allowed"
    assert set(lines[1:]) == {
        b"content-type: application/json",
        b"allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        b"content-length: %d" % len(body),
        b"connection: close",
    }
    it.feed(GET % 1)
    assert it.desk.calls == []
    assert it.transport.state == "half-closed"


@given(reads=st.lists(st.binary(max_size=200) | st.just(GET % 1) | st.just((GET % 1)[:20]), max_size=12))
def test_no_bytes_raise_or_wedge_a_connection(line: Any, reads: list[bytes]) -> None:
    it = line(echo)
    for data in reads:
        it.feed(data)
    it.clock.advance(1000 * SECOND)
    it.clock.advance(1000 * SECOND)
    assert it.transport.is_closing()
    assert not it.connections.open
    assert it.sent.count(b"HTTP/1.1 ") == it.sent.count(b"\r\n\r\n")


HOSTILE = {
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "two lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "bad chunk": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "large head": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 40_000 + b"\r\n\r\n", 431),
    "large body": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"b" * 500_000, 413),
    "preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 100, 400),
    "tunnel": (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
}


@pytest.mark.parametrize("shape", HOSTILE)
def test_a_hostile_client_reads_its_answer_to_the_end_over_a_real_socket(running: Any, dial: Any, desk: Any, shape: str) -> None:
    data, status = HOSTILE[shape]

    async def main() -> None:
        async with running(desk) as server, dial(server) as (reader, writer):
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"connection: close\r\n" in head
            body = await reader.read()
            assert b"content-length: %d\r\n" % len(body) in head
            assert json.loads(body)["error"]["type"] == "invalid_request_error"
        assert desk.calls == []

    asyncio.run(main())


def test_a_leaving_client_is_noticed_while_the_answer_is_awaited(running: Any, dial: Any) -> None:
    async def main() -> None:
        here, gone = asyncio.Event(), asyncio.Event()

        def application(request: Request, response: Response) -> None:
            response.disconnected = gone.set
            here.set()

        async with running(application) as server:
            async with dial(server) as (_, writer):
                writer.write(GET % 0)
                await here.wait()
            await asyncio.wait_for(gone.wait(), 5)
            assert server.connections == 0

    asyncio.run(main())


def test_an_unread_stream_pauses_its_application_and_resumes_when_read(running: Any, dial: Any) -> None:
    paused, resumed = [], []

    def application(request: Request, response: Response) -> None:
        response.pausing = lambda: paused.append(1)
        response.resuming = lambda: resumed.append(1)
        response.start(200, [])
        written = 0
        while not paused:
            response.write(b"d" * 32_768)
            written += 32_768
            assert written < 50_000_000
        response.end()

    def two(request: Request, response: Response) -> None:
        if request.path == b"/1":
            application(request, response)
        else:
            echo(request, response)

    async def main() -> None:
        async with running(two) as server, dial(server, 4096) as (reader, writer):
            writer.write(GET % 1 + GET % 2)
            await reader.readuntil(b"\r\n\r\n")
            (connection,) = server._connections.open
            assert 64 * 1024 < connection.transport.get_write_buffer_size() < 64 * 1024 + 40_000
            seen = b""
            while b"x-path: /2" not in seen:
                seen = seen[-100:] + await asyncio.wait_for(reader.read(65_536), 5)
            assert paused == [1]

    asyncio.run(main())


@pytest.mark.parametrize(("version", "ending"), [(b"1.1", b"4\r\npart\r\n"), (b"1.0", None)])
def test_an_aborted_stream_is_seen_as_incomplete(running: Any, dial: Any, version: bytes, ending: bytes | None) -> None:
    def application(request: Request, response: Response) -> None:
        response.start(200, [])
        response.write(b"part")
        asyncio.get_running_loop().call_soon(response.abort)

    async def main() -> None:
        async with running(application) as server, dial(server) as (reader, writer):
            writer.write(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version)
            if ending is None:
                with pytest.raises(ConnectionResetError):
                    await reader.read()
            else:
                assert (await reader.read()).endswith(ending)

    asyncio.run(main())


def test_closing_lets_answers_end_and_cuts_the_rest(desk: Any, dial: Any) -> None:
    async def main() -> None:
        clock = FakeClock()
        server = await serve(desk, "127.0.0.1", 0, ServerOptions(), clock)
        async with dial(server) as first, dial(server) as second, dial(server) as idle:
            first[1].write(GET % 0)
            second[1].write(GET % 0)
            while len(desk.calls) < 2 or server.connections < 3:
                await asyncio.sleep(0)
            closing = asyncio.ensure_future(server.close(5 * SECOND))
            assert await idle[0].read() == b""
            desk.calls[0][1].send(200, [], b"done")
            while server.connections > 1:
                await asyncio.sleep(0)
            assert not closing.done()
            clock.advance(5 * SECOND)
            await asyncio.wait_for(closing, 5)
            answers = sorted([await first[0].read(), await second[0].read()])
            assert answers[0] == b""
            assert answers[1].endswith(b"connection: close\r\n\r\ndone")
        assert desk.events == ["left 1"]
        assert clock.pending == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(server.host, server.port)

    asyncio.run(main())


def test_a_stream_begun_before_the_drain_is_the_connections_last(line: Any) -> None:
    it = line()
    it.feed(GET % 0)
    response = it.desk.calls[0][1]
    response.start(200, [])
    it.connections.drain()
    response.end()
    assert it.sent.endswith(b"0\r\n\r\n")
    assert it.transport.state == "closed"


def test_small_packets_are_sent_at_once_and_a_given_socket_is_used(dial: Any) -> None:
    async def main() -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        server = await serve(echo, "", 0, ServerOptions(), FakeClock(), sock=listening)
        async with dial(server) as (reader, writer):
            writer.write(GET % 0)
            await reader.readuntil(b"\r\n\r\n")
            (connection,) = server._connections.open
            assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await server.close(SECOND)

    asyncio.run(main())


def test_a_port_in_use_is_an_error_and_leaves_no_timer() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            clock = FakeClock()
            with pytest.raises(OSError, match="in use"):
                await serve(echo, "127.0.0.1", listening.getsockname()[1], ServerOptions(), clock)
            assert clock.pending == 0

    asyncio.run(main())


def test_the_server_runs_on_uvloop_as_well(dial: Any) -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        server = await serve(echo, "127.0.0.1", 0, ServerOptions(), FakeClock())
        async with dial(server) as (reader, writer):
            writer.write(GET % 0 + b"nonsense\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"HTTP/1.1 400 Bad Request" in answer
        await server.close(SECOND)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
