"""Heads of messages as bytes, and the headers that belong to one connection and are never passed on."""

from http import HTTPStatus

from holdfast.execution.upstream import Headers

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Headers that the transport sets itself (RFC 9110, section 7.6.1, with the framing and routing ones); given ones are left out."""

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}

JOINED_BYTES = 64 * 1024
"""A body up to this size goes out in one piece with its head, which costs less than a second system call; a larger one is not copied.
`writelines` would do neither: Python 3.11 joins the lines, and 3.12 and 3.13 forget to pause the protocol when its buffer is full."""


def status_line(status: int) -> bytes:
    """The first line of an answer, its line end included."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def render(first_line: bytes, headers: Headers, framing: bytes) -> bytes:
    """A head from its first line, the headers that may be passed on, and finished `framing` lines.

    Raises ValueError for a header with a line break in it: written as it is, it would become a header or a message of its own.
    """
    lines = [first_line]
    for name, value in headers:
        if name not in HOP_BY_HOP:
            lines.append(b"%b: %b\r\n" % (name, value))
    given = len(lines)
    lines.append(framing)
    lines.append(b"\r\n")
    head = b"".join(lines)
    breaks = given + framing.count(b"\n") + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise ValueError("a header holds a line break")
    return head
