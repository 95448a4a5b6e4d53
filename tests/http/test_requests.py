"""Request parser: what it accepts, what it rejects, and that neither depends on how the bytes were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.http.requests import Accepted, Rejected, RequestParser, ServerOptions, Stage

SMALL = ServerOptions(max_header_bytes=1000, max_headers=20, max_body_bytes=100)
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

HOSTILE = {
    "missing Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "duplicate Host": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    "two names in Host": (b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n", 400),
    "a path in Host": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", 400),
    "duplicate Host in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "both lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "both lengths, other order": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
    "equal Content-Lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "contradicting Content-Lengths": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    "a list in Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
    "a sign in Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400),
    "a negative Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
    "an empty Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\n", 400),
    "an overflowing Content-Length": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    "a space before the colon": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc", 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked, gzip": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked, then identity": (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        400,
    ),
    "identity": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "vertical tab before chunked": (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "hexadecimal prefix in a chunk size": (CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n", 400),
    "negative chunk size": (CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n", 400),
    "overflowing chunk size": (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n", 400),
    "space behind a chunk size": (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", 400),
    "bare line feeds in chunks": (CHUNKED + b"3\nabc\n0\n\n", 400),
    "chunk longer than its size": (CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n", 400),
    "line feed in a chunk extension": (CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n", 400),
    "endless chunk extension": (CHUNKED + b"3;" + b"a" * 2000, 400),
    "endless trailers": (CHUNKED + b"0\r\n" + b"a: b\r\n" * 400, 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400),
    "carriage return in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400),
    "folded header": (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400),
    "space before the first header": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400),
    "header without a name": (b"GET / HTTP/1.1\r\nHost: x\r\n: c\r\n\r\n", 400),
    "header without a colon": (b"GET / HTTP/1.1\r\nHost: x\r\nabc\r\n\r\n", 400),
    "bad character in a name": (b"GET / HTTP/1.1\r\nHost: x\r\na(b: c\r\n\r\n", 400),
    "lower-case method": (b"get / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "unknown method": (b"FOO / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "RTSP": (b"DESCRIBE / RTSP/1.0\r\nHost: x\r\n\r\n", 405),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 400),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "fragment in the target": (b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "raw UTF-8 in the target": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "target without a slash": (b"GET foo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "asterisk and more": (b"OPTIONS *foo HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "foreign scheme": (b"GET ftp://h/p HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "unmet expectation": (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\na", 417),
    "two expectations": (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na", 400),
    "announced body over the limit": (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n", 413),
    "chunked body over the limit": (CHUNKED + b"65\r\n" + b"a" * 101, 413),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20 + b"\r\n", 431),
    "a large head": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: bbbbbbbbbbbbbbbb\r\n" * 60 + b"\r\n", 431),
    "a head without end": (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 2000, 431),
    "a name without end": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * 2000, 431),
    "a target without end": (b"GET /" + b"a" * 2000, 431),
    "a large target": (b"GET /" + b"a" * 2000 + b" HTTP/1.0\r\n\r\n", 431),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, 400),
}


def parse(*reads: bytes, options: ServerOptions = SMALL) -> list[Accepted | Rejected]:
    parser = RequestParser(options, "192.0.2.1")
    for data in reads:
        parser.feed(data)
    return list(parser.parsed)


def outcome(items: list[Accepted | Rejected]) -> list[object]:
    return [item.status if isinstance(item, Rejected) else (item.request, item.keep_alive, item.chunked) for item in items]


def only(data: bytes) -> Accepted:
    (item,) = parse(data)
    assert isinstance(item, Accepted)
    return item


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_shapes_are_rejected_and_nothing_behind_them_is_read(shape: str) -> None:
    data, status = HOSTILE[shape]
    after = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    assert outcome(parse(data, after)) == [status]


@pytest.mark.parametrize("shape", HOSTILE)
def test_hostile_shapes_are_rejected_byte_by_byte_too(shape: str) -> None:
    data, status = HOSTILE[shape]
    assert outcome(parse(*(data[i : i + 1] for i in range(len(data))))) == [status]


def test_a_request_comes_out_as_it_was_sent() -> None:
    accepted = only(b"POST /a%20b?q=1?2 HTTP/1.1\r\nHost: x:1\r\nX-Name: \t V v \t\r\nContent-Length: 3\r\n\r\nabc")
    request = accepted.request
    assert (request.method, request.path, request.query, request.body, request.peer) == (b"POST", b"/a%20b", b"q=1?2", b"abc", "192.0.2.1")
    assert request.headers == [(b"host", b"x:1"), (b"x-name", b"V v"), (b"content-length", b"3")]
    assert accepted.keep_alive
    assert accepted.chunked


@pytest.mark.parametrize(
    ("head", "keep_alive", "chunked"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", False, True),
        (b"GET / HTTP/1.0\r\n\r\n", False, False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True, False),
    ],
)
def test_the_client_says_whether_the_connection_is_kept(head: bytes, keep_alive: bool, chunked: bool) -> None:
    accepted = only(head)
    assert (accepted.keep_alive, accepted.chunked) == (keep_alive, chunked)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://h:1/p/q?r=1", b"/p/q", b"r=1"),
        (b"HTTPS://h", b"/", b""),
        (b"http://h?r", b"/", b"r"),
        (b"//h/p", b"//h/p", b""),
    ],
)
def test_of_an_absolute_target_the_path_counts(target: bytes, path: bytes, query: bytes) -> None:
    request = only(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target).request
    assert (request.path, request.query) == (path, query)


def test_the_asterisk_is_the_target_of_options() -> None:
    assert only(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").request.path == b"*"


def test_trailers_and_chunk_extensions_are_dropped() -> None:
    request = only(CHUNKED + b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nHost: evil\r\n\r\n").request
    assert request.body == b"abcde"
    assert [name for name, _ in request.headers] == [b"host", b"transfer-encoding"]


def test_a_body_in_thousands_of_tiny_chunks_comes_out_whole() -> None:
    options = ServerOptions(max_header_bytes=1000)
    (item,) = parse(CHUNKED, *[b"2\r\nab\r\n"] * 3000, b"0\r\n\r\n", options=options)
    assert isinstance(item, Accepted)
    assert item.request.body == b"ab" * 3000


@pytest.mark.parametrize("body", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"])
def test_a_wish_to_upgrade_is_ignored_and_its_body_stays_a_body(body: bytes) -> None:
    upgrade = b"POST /1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + body
    first, second = parse(upgrade + b"GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert (first.request.body, first.request.header(b"upgrade")) == (b"abc", None)
    assert second.request.path == b"/2"


@pytest.mark.parametrize("upgrade", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
def test_one_read_full_of_requests_is_cut_off_at_a_hundred(upgrade: bytes) -> None:
    items = parse(b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % upgrade * 500)
    assert len(items) == 100
    assert [item.keep_alive for item in items if isinstance(item, Accepted)] == [True] * 99 + [False]


def test_bytes_behind_a_last_request_are_ignored() -> None:
    items = parse(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n", b"more")
    assert len(items) == 1


def test_a_bad_request_behind_a_good_one_leaves_the_good_one() -> None:
    assert [type(item) for item in parse(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")] == [Accepted, Rejected]


TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(lambda text: b"x-" + text.encode())
VALUE = st.text("abc ,;=\t\"'", max_size=12).map(lambda text: text.strip().encode())


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from((b"GET", b"POST", b"HEAD", b"DELETE")))
    head = method + draw(st.sampled_from((b" /", b" /a?b=c", b" http://h/x"))) + b" HTTP/1.1\r\nHost: h\r\n"
    for name, value in draw(st.lists(st.tuples(TOKEN, VALUE), max_size=4)):
        head += name + b": " + value + b"\r\n"
    if draw(st.integers(0, 5)) == 0:
        head += b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    body = draw(st.binary(max_size=60))
    match draw(st.sampled_from(("none", "length", "chunked"))):
        case "none":
            return head + b"\r\n"
        case "length":
            return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cut = draw(st.integers(0, len(body)))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:cut], body[cut:]) if piece)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@st.composite
def cut(draw: st.DrawFn, stream: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    whole = draw(stream)
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return whole, [whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)]


@given(cut(st.lists(requests(), min_size=1, max_size=4).map(b"".join)))
def test_any_cut_of_the_stream_gives_the_same_requests(stream: tuple[bytes, list[bytes]]) -> None:
    whole, reads = stream
    expected = outcome(parse(whole))
    assert all(isinstance(each, tuple) for each in expected)
    assert outcome(parse(*reads)) == expected


@given(cut(st.tuples(requests(), st.binary(max_size=200)).map(b"".join)))
def test_any_cut_of_a_stream_that_turns_bad_gives_the_same_outcome(stream: tuple[bytes, list[bytes]]) -> None:
    whole, reads = stream
    assert outcome(parse(*reads)) == outcome(parse(whole))


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_no_bytes_raise_or_bring_more_than_one_rejection(reads: list[bytes]) -> None:
    parser = RequestParser(SMALL, "")
    for data in reads:
        parser.feed(data)
        parser.feed(memoryview(data))
    rejected = [item for item in parser.parsed if isinstance(item, Rejected)]
    assert len(rejected) <= 1
    assert not rejected or parser.stage is Stage.DONE


@pytest.mark.parametrize("first", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
@given(cut=st.integers(0, 1400))
def test_a_large_head_is_rejected_wherever_it_begins_and_is_cut(first: bytes, cut: int) -> None:
    parser = RequestParser(SMALL, "")
    message = (
        first + b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n" * 18 + b"\r\n"
    )
    for piece in (message[:cut], message[cut:]):
        parser.feed(piece)
    last = parser.parsed.pop()
    assert isinstance(last, Rejected)
    assert last.status == 431


@given(cut=st.integers(0, 2000))
def test_large_reads_of_small_heads_are_not_mistaken_for_large_heads(cut: int) -> None:
    parser = RequestParser(SMALL, "")
    message = (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\na: " + b"b" * 800 + b"\r\n\r\n" + b"c" * 90) * 2
    for piece in (message[:cut], message[cut:]):
        parser.feed(piece)
    assert [type(item) for item in parser.parsed] == [Accepted, Accepted]
