"""The way back to the client of one request, as bytes on its connection."""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from holdfast.execution.upstream import Headers
from holdfast.http.head import JOINED_BYTES, render, status_line
from holdfast.http.requests import Accepted

JSON = (b"content-type", b"application/json")


class Line(Protocol):
    """The connection that an answer goes out on."""

    transport: asyncio.Transport

    @property
    def parting(self) -> bool:
        """Whether this answer is to be the connection's last."""

    def answered(self, counted: int) -> None:
        """The request in progress needs nothing more; `counted` bytes of its body are free again."""

    def send(self, data: bytes, body: bytes = b"", end: bytes = b"") -> None:
        """Hand bytes to the transport."""

    def finished(self, keep_alive: bool) -> None:
        """The answer in progress was handed to the transport to its end."""

    def aborted(self, reset: bool) -> None:
        """The answer in progress ends here, and the client must be able to tell."""


class Answer:
    """The `Response` to one request; detached from its connection when it ends, so that late calls reach nothing."""

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_connection",
        "_keep_alive",
        "_request",
        "_sized",
        "disconnected",
        "pausing",
        "resuming",
        "started",
    )

    def __init__(self, connection: Line, accepted: Accepted) -> None:
        self.disconnected: Callable[[], None] | None = None
        self.pausing: Callable[[], None] | None = None
        self.resuming: Callable[[], None] | None = None
        self._connection: Line | None = connection
        self._request = accepted
        self._keep_alive = accepted.keep_alive
        self._bodiless = accepted.request.method == b"HEAD"
        self._chunked = False
        self._sized = False
        self.started = False

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        connection = self._connection
        if connection is None:
            return
        assert not self.started
        self._keep_alive = self._keep_alive and not connection.parting
        no_body = status in (204, 304)
        length = None if no_body or (self._bodiless and not body) else len(body)
        head = render(status_line(status), headers, self._framing(length))
        self._detach()
        if no_body or self._bodiless:
            connection.send(head)
        else:
            connection.send(head, body)
        connection.finished(self._keep_alive)

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        connection = self._connection
        if connection is None:
            return
        assert not self.started
        self._bodiless = self._bodiless or status in (204, 304)
        if status == 204:
            length = None
        self._sized = length is not None
        self._chunked = self._request.chunked and not self._bodiless and not self._sized
        self._keep_alive = self._keep_alive and (self._chunked or self._bodiless or self._sized) and not connection.parting
        framing = self._framing(length)
        head = render(status_line(status), headers, framing + b"transfer-encoding: chunked\r\n" if self._chunked else framing)
        self.started = True
        connection.send(head)

    def write(self, data: bytes) -> None:
        connection = self._connection
        if connection is None or self._bodiless or not data:
            return
        assert self.started
        if not self._chunked:
            connection.send(data)
        elif len(data) <= JOINED_BYTES:
            connection.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            connection.send(b"%x\r\n" % len(data), data, b"\r\n")

    def end(self) -> None:
        connection = self._connection
        if connection is None:
            return
        assert self.started
        self._detach()
        if self._chunked:
            connection.send(b"0\r\n\r\n")
        connection.finished(self._keep_alive)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None:
            self._detach()
            connection.aborted(reset=self.started and not (self._chunked or self._sized))

    def fail(self) -> None:
        """The application raised: 500 while nothing was sent, a cut afterwards."""
        if self.started:
            self.abort()
        else:
            self._keep_alive = False
            self.send(500, [JSON], error_body("internal_error", "internal error"))

    def client_left(self) -> None:
        disconnected = self.disconnected
        self._detach()
        if disconnected is not None:
            disconnected()

    def _detach(self) -> None:
        """Let go of the connection, and of the application: a circle of references would leave every call to the garbage collector,
        measured at 25 us per call."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.answered(self._request.counted)
        self.disconnected = self.pausing = self.resuming = None

    def _framing(self, length: int | None) -> bytes:
        return framing(length, close=not self._keep_alive, announce=not self._request.chunked)


def error_body(kind: str, message: str) -> bytes:
    """An error body of the shape that the clients of every wire format read a message from."""
    return msgspec.json.encode({"error": {"type": kind, "message": message}})


def framing(length: int | None, *, close: bool, announce: bool = False) -> bytes:
    """The framing headers; a kept connection is announced only to HTTP/1.0 clients."""
    framing = b"" if length is None else b"content-length: %d\r\n" % length
    if close:
        return framing + b"connection: close\r\n"
    return framing + b"connection: keep-alive\r\n" if announce else framing
