"""Bodies that are relayed as they come, as they reach the server: with back-pressure, bounded memory, and the right end."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.clock import SECOND
from holdfast.http.connection import ServerProtocol
from holdfast.http.requests import Accepted, Rejected, RequestParser, ServerOptions
from holdfast.http.upload import MOST_HELD_BYTES, ROOM_BYTES, Upload

CHUNKED = b"POST /tools/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 300_000


def below_tools(path: bytes) -> bool:
    return path.startswith(b"/tools/")


def post(size: int, *headers: bytes, path: bytes = b"/tools/x", method: bytes = b"POST") -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n" % (method, path, size, lines)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Taker:
    """A `BodySink` that keeps what it gets, and pauses where it is told to."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = 0

    def body_data(self, data: bytes) -> None:
        assert data
        self.data += data

    def body_ended(self) -> None:
        self.ended += 1


@pytest.fixture
def uploading(line: Any) -> Callable[..., Any]:
    """A server's connection that relays what is below `/tools/`."""

    def build(options: ServerOptions | None = None) -> Any:
        one = line(options=options)
        one.protocol = ServerProtocol(one.desk, options or ServerOptions(), one.clock, one.connections, below_tools)
        one.transport.protocol = one.protocol
        one.connections.open.clear()
        one.protocol.connection_made(one.transport)
        return one

    return build


def upload_of(one: Any, number: int = 0) -> Upload:
    upload = one.desk.calls[number][0].upload
    assert upload is not None
    return upload


def test_a_large_body_is_handed_over_as_it_comes(uploading: Any) -> None:
    one = uploading()
    one.feed(post(LARGE) + b"abc")
    upload, taker = upload_of(one), Taker()
    assert (upload.length, one.desk.calls[0][0].body) == (LARGE, b"")
    upload.start(taker)
    assert taker.data == b"abc"
    one.feed(b"d" * (LARGE - 3))
    assert (len(taker.data), taker.ended) == (LARGE, 1)
    one.desk.calls[0][1].send(200, (), b"ok")
    one.feed(NEXT)
    assert one.desk.paths == [b"/tools/x", b"/next"] and b"connection: close" not in one.sent


def test_a_chunked_body_is_handed_over_without_its_chunks(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(CHUNKED)
    upload_of(one).start(taker)
    one.feed(chunk(b"abc") + b"3")
    one.feed(b"\r\ndef\r\n0\r\ntrailer: dropped\r\n\r\n" + NEXT)
    assert (bytes(taker.data), taker.ended, upload_of(one).length) == (b"abcdef", 1, None)
    one.desk.calls[0][1].send(200, (), b"")
    assert one.desk.paths == [b"/tools/x", b"/next"]


@pytest.mark.parametrize("data", [post(5) + b"hello", CHUNKED + chunk(b"hello") + b"0\r\n\r\n", post(0)])
def test_what_is_small_or_whole_already_is_a_body_like_any_other(uploading: Any, data: bytes) -> None:
    one = uploading()
    one.feed(data)
    request = one.desk.calls[0][0]
    assert (request.upload, request.body) == (None, b"hello" if b"hello" in data else b"")


def test_other_paths_get_their_body_whole(uploading: Any) -> None:
    one = uploading()
    one.feed(post(LARGE, path=b"/v1/chat/completions") + b"a" * (LARGE - 1))
    assert not one.desk.calls
    one.feed(b"a")
    assert (len(one.desk.calls[0][0].body), one.desk.calls[0][0].upload) == (LARGE, None)


def test_without_a_taker_no_more_is_read_than_there_is_room_for(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE) + b"a" * (ROOM_BYTES - 1))
    assert one.transport.reading
    one.feed(b"a" * 1000)
    assert not one.transport.reading and upload_of(one).held == ROOM_BYTES + 999
    one.clock.advance(10_000 * SECOND)  # the client is not to blame
    assert one.transport.state == "open"
    upload_of(one).start(taker)
    assert one.transport.reading and len(taker.data) == ROOM_BYTES + 999


def test_a_taker_that_pauses_holds_the_client_up_and_one_that_goes_on_gets_the_rest(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE))
    upload = upload_of(one)
    upload.start(taker)
    upload.pause()
    one.feed(b"a" * ROOM_BYTES)
    assert not taker.data and not one.transport.reading
    upload.resume()
    assert len(taker.data) == ROOM_BYTES and one.transport.reading
    upload.pause()
    one.feed(b"a" * (LARGE - ROOM_BYTES))
    assert not taker.ended
    upload.resume()
    assert (len(taker.data), taker.ended) == (LARGE, 1)


def test_continue_is_said_when_the_body_is_wanted(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE, b"Expect: 100-continue"))
    assert not one.sent
    upload_of(one).start(taker)
    assert one.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    one.feed(b"a" * LARGE)
    one.desk.calls[0][1].send(200, (), b"")
    assert one.sent.count(b"100 Continue") == 1 and one.sent.endswith(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def test_a_refusal_comes_instead_of_continue_and_closes(uploading: Any) -> None:
    one = uploading()
    one.feed(post(LARGE, b"Expect: 100-continue"))
    one.desk.calls[0][1].send(403, (), b"no")
    assert b"100" not in one.sent and b"connection: close\r\n" in one.sent
    assert one.transport.state == "half-closed"


def test_an_answer_before_the_end_is_the_last_and_what_still_comes_is_dropped(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE) + b"a" * 1000)
    upload_of(one).start(taker)
    one.desk.calls[0][1].send(413, (), b"too much")
    assert b"connection: close\r\n" in one.sent and one.transport.state == "half-closed"
    one.feed(b"a" * (LARGE - 1000) + NEXT)
    assert len(taker.data) == 1000 and one.desk.paths == [b"/tools/x"]
    one.clock.advance(31 * SECOND)
    assert one.transport.state == "aborted"


def test_an_answer_that_begins_before_the_end_goes_on_beside_it(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE) + b"a")
    upload_of(one).start(taker)
    response = one.desk.calls[0][1]
    response.start(200, ())
    response.write(b"first")
    one.feed(b"a" * (LARGE - 1))
    assert (len(taker.data), taker.ended) == (LARGE, 1)
    response.end()
    assert one.transport.state == "closed" and b"connection: close\r\n" in one.sent


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("why", ["garbage", "time"])
def test_an_upload_that_breaks_off_is_the_clients_leaving(uploading: Any, why: str, started: bool) -> None:
    one, taker = uploading(), Taker()
    one.feed(CHUNKED + chunk(b"abc"))
    upload_of(one).start(taker)
    if started:
        one.desk.calls[0][1].start(200, ())
    if why == "garbage":
        one.feed(b"no chunk\r\n")
    else:
        one.clock.advance(61 * SECOND)
    assert one.desk.events == ["left 0"] and not taker.ended
    if started:
        assert one.transport.state == "aborted"
    else:
        assert one.sent.startswith(b"HTTP/1.1 400" if why == "garbage" else b"HTTP/1.1 408") and one.transport.state == "half-closed"
    one.desk.calls[0][1].send(200, (), b"late")
    assert b"late" not in one.sent


def test_a_client_that_leaves_within_its_body_is_reported(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(post(LARGE) + b"abc")
    upload_of(one).start(taker)
    one.protocol.eof_received()
    assert one.desk.events == ["left 0"] and one.transport.state == "aborted" and not taker.ended
    assert not one.connections.bodies.held
    assert upload_of(one).giver is None


def test_a_pipelined_upload_waits_for_the_answer_before_it(uploading: Any) -> None:
    one, taker = uploading(), Taker()
    one.feed(NEXT + post(LARGE) + b"abc")
    one.feed(b"def")
    assert one.desk.paths == [b"/next"]
    one.desk.calls[0][1].send(200, (), b"")
    upload_of(one, 1).start(taker)
    assert bytes(taker.data) == b"abcdef"
    one.feed(b"g" * (LARGE - 6) + NEXT)
    assert (len(taker.data), taker.ended) == (LARGE, 1)
    one.desk.calls[1][1].send(200, (), b"")
    assert one.desk.paths == [b"/next", b"/tools/x", b"/next"]


def test_uploads_are_counted_while_they_last(uploading: Any) -> None:
    one = uploading(ServerOptions(max_bodies_bytes=MOST_HELD_BYTES))
    one.feed(post(LARGE))
    assert one.connections.bodies.held == MOST_HELD_BYTES
    upload_of(one).start(Taker())
    one.feed(b"a" * LARGE + post(LARGE))
    one.desk.calls[0][1].send(200, (), b"")
    assert one.connections.bodies.held == 0 and b"503" in one.sent  # there was no room when it was read


@pytest.mark.parametrize(
    ("method", "path", "passes"),
    [
        (b"PROPFIND", b"/tools/x", True),
        (b"QUERY", b"/tools/x", True),
        (b"PROPFIND", b"/v1/models", False),
        (b"TRACE", b"/tools/x", False),
        (b"CONNECT", b"tools:1", False),
    ],
)
def test_methods_of_any_kind_pass_below_relayed_paths_but_those_that_show_secrets(method: bytes, path: bytes, passes: bool) -> None:
    parser = RequestParser(ServerOptions(), "", relayed=below_tools)
    parser.feed(b"%b %b HTTP/1.1\r\nHost: x\r\n\r\n" % (method, path))
    (item,) = parser.parsed
    assert isinstance(item, Accepted) is passes
    assert passes or (isinstance(item, Rejected) and item.status == 405)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    start_after=st.integers(0, 10),
)
def test_however_an_upload_is_cut_its_taker_gets_the_same_bytes(line: Any, pieces: list[bytes], cuts: list[int], start_after: int) -> None:
    one, taker = line(), Taker()
    one.protocol = ServerProtocol(one.desk, ServerOptions(), one.clock, one.connections, below_tools)
    one.transport.protocol = one.protocol
    one.protocol.connection_made(one.transport)
    left = CHUNKED + b"".join(map(chunk, pieces)) + b"0\r\n\r\n" + NEXT
    reads = 0
    body: bytes | None = None

    def take() -> None:
        nonlocal body
        if one.desk.calls and body is None and reads >= start_after:
            request = one.desk.calls[0][0]
            body = b"" if request.upload is not None else request.body
            if request.upload is not None:
                request.upload.start(taker)

    while left:
        size = cuts[reads % len(cuts)]
        one.feed(left[:size])
        left, reads = left[size:], reads + 1
        take()
    reads = 1000
    take()
    assert (body or b"") + bytes(taker.data) == b"".join(pieces)
    assert taker.ended == (one.desk.calls[0][0].upload is not None)
    one.desk.calls[0][1].send(200, (), b"")
    assert one.desk.paths == [b"/tools/x", b"/next"]
