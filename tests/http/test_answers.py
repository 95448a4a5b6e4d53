"""Answer parser: where an answer ends, whether its connection may go on, and that neither depends on how the bytes were cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.http.answers import AnswerParser

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def read(*reads: bytes, method: bytes = b"GET") -> tuple[AnswerParser, bytes, str | None]:
    """The parser, all body bytes, and the first error."""
    parser = AnswerParser(1000)
    parser.expect(method)
    body, error = b"", None
    for data in reads:
        error = parser.feed(data)
        body += parser.take_body()
        if error is not None or parser.complete:
            break
    return parser, body, error


def test_an_answer_comes_out_as_it_was_sent() -> None:
    parser, body, error = read(b"HTTP/1.1 201 Created\r\nX-Id:  7 \r\nContent-Length: 2\r\n\r\nok")
    assert (parser.status, parser.headers, body, error) == (201, [(b"x-id", b"7"), (b"content-length", b"2")], b"ok", None)
    assert parser.complete
    assert parser.reusable()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_some_statuses_have_no_body_whatever_the_length_says(status: bytes) -> None:
    parser, body, _ = read(b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n" % status)
    assert (parser.complete, parser.reusable(), body) == (True, True, b"")


def test_an_answer_to_head_ends_with_its_head_and_the_parser_goes_on() -> None:
    parser, body, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", method=b"HEAD")
    assert (parser.complete, parser.reusable(), body) == (True, True, b"")
    parser.expect(b"GET")
    parser.feed(OK)
    assert (parser.complete, parser.take_body()) == (True, b"ok")


def test_a_body_after_an_answer_to_head_ends_the_connection() -> None:
    parser, body, _ = read(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", method=b"HEAD")
    assert (parser.complete, parser.reusable(), body) == (True, False, b"")


def test_interim_answers_are_skipped() -> None:
    parser, body, _ = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK)
    assert (parser.status, parser.headers, body) == (200, [(b"content-length", b"2")], b"ok")


def test_endless_interim_answers_are_garbage() -> None:
    _, _, error = read(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 50)
    assert error is not None
    assert "larger than 1000" in error


@pytest.mark.parametrize(
    ("data", "framed", "complete", "reusable"),
    [
        (OK, True, True, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", True, True, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", True, True, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", True, True, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\n", True, True, True),
        (b"HTTP/1.1 200 OK\r\n\r\nok", False, False, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", False, False, False),
        (b"HTTP/1.1 200 OK\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\nok", True, True, True),
    ],
)
def test_the_head_says_where_the_body_ends(data: bytes, framed: bool, complete: bool, reusable: bool) -> None:
    parser, body, error = read(data)
    assert (parser.framed, parser.complete, parser.reusable(), body, error) == (framed, complete, reusable, b"ok", None)


@pytest.mark.parametrize("surplus", [b"X", OK, b"HTTP/1.1 200 OK\r\n"])
def test_bytes_after_the_answer_end_the_connection_but_not_the_answer(surplus: bytes) -> None:
    parser, body, _ = read(OK + surplus)
    assert (parser.complete, body, parser.status, parser.headers) == (True, b"ok", 200, [(b"content-length", b"2")])
    assert not parser.reusable() or surplus == b"X"  # for a lone X `feed` returned the error instead


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * 2000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;" + b"a" * 2000,
    ],
)
def test_what_is_not_http_is_said_to_be_wrong(data: bytes) -> None:
    parser, _, error = read(data[:60], data[60:])
    assert error
    assert not parser.complete


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    head = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2)) + b"HTTP/1.1 200 OK\r\nX-A: b\r\n"
    body = draw(st.binary(max_size=60))
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    cut = draw(st.integers(0, len(body)))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[:cut], body[cut:]) if piece)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(answers(), st.lists(st.integers(0, 300), max_size=8))
def test_any_cut_of_an_answer_gives_the_same_answer(whole: bytes, places: list[int]) -> None:
    places = sorted(min(place, len(whole)) for place in places)
    expected, expected_body, _ = read(whole)
    parser, body, error = read(*(whole[a:b] for a, b in zip([0, *places], [*places, len(whole)], strict=True)))
    assert (parser.status, parser.headers, body, error) == (200, expected.headers, expected_body, None)
    assert parser.complete
    assert parser.reusable()


@given(st.sampled_from((b"", b"HTTP/1.1 200 OK\r\n", OK, OK[:-2])), st.binary(max_size=200), st.sampled_from((b"GET", b"HEAD")))
def test_no_bytes_raise(start: bytes, rest: bytes, method: bytes) -> None:
    read(start + rest, rest, method=method)
