"""Heads: only what may be passed on, and never a line that nobody wrote."""

import pytest

from holdfast.http.head import render, status_line


def test_headers_of_the_connection_are_left_out() -> None:
    headers = [(b"host", b"evil"), (b"content-length", b"9"), (b"transfer-encoding", b"chunked"), (b"connection", b"x"), (b"a", b"b")]
    assert render(b"GET / HTTP/1.1\r\n", headers, b"host: x\r\n") == b"GET / HTTP/1.1\r\na: b\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("header", [(b"a", b"b\r\nc: d"), (b"a", b"b\n"), (b"a", b"b\rc"), (b"a\r\nb", b"c")])
def test_a_line_break_in_a_header_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="line break"):
        render(b"GET / HTTP/1.1\r\n", [header], b"host: x\r\n")


def test_status_lines_have_the_standard_phrase_where_there_is_one() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(599) == b"HTTP/1.1 599 \r\n"
