"""One HTTP call as raw bytes over kept connections, with a verdict on how it ended; cheap enough to run beside what is measured."""

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
MARKERS = {
    "chat": (b"data: [DONE]\n\n",),
    "responses": (b"event: response.completed\n", b"event: response.incomplete\n"),
    "messages": (b"event: message_stop\n",),
}
"""How a stream of each format ends when nothing went wrong."""


@dataclass(slots=True)
class Reply:
    """What came back. status: 0 when no head came. whole: the body came to the end that its framing announces. Instants: monotonic ns."""

    status: int = 0
    headers: dict[str, str] | None = None
    body: bytes = b""
    whole: bool = False
    began_ns: int = 0
    ended_ns: int = 0

    def header(self, name: str) -> str:
        return (self.headers or {}).get(name, "")

    def ending(self, kind: str, *, stream: bool) -> str:
        """`answer`, or `refused` (by Holdfast), `error` or `garbage` (an upstream's, passed on), `error event`, `cut`; and what must never
        be: `unfinished`, a proper end without the format's own marker or error event."""
        if not self.whole:
            return "cut"
        if self.status != 200:
            return "refused" if self.header("x-holdfast-refusal") else "error" if self.status >= 400 else "garbage"
        if not (stream and self.header("content-type").startswith("text/event-stream")):
            return "answer" if _is_answer(kind, self.body) else "garbage"
        if any(marker in self.body for marker in MARKERS[kind]):
            return "answer"
        return "error event" if _is_error(self.body) else "unfinished"


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.closed = False
        self._waiting: asyncio.Future[None] | None = None
        self.received = bytearray()
        self._head = -1
        self._length: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._done()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._head < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = end + 4
            head = bytes(self.received[:end]).lower()
            at = head.find(b"content-length:")
            self._length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else None
        if self.ended:
            self._done()

    @property
    def ended(self) -> bool:
        if self._head < 0:
            return False
        return self.received.endswith(b"\r\n0\r\n\r\n") if self._length is None else len(self.received) >= self._head + self._length

    async def call(self, message: bytes, patience_s: float) -> None:
        self.received = bytearray()
        self._head, self._length = -1, None
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        async with asyncio.timeout(patience_s):
            await self._waiting

    def _done(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Lines:
    """Kept connections to one port; one call at a time on each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []

    async def call(self, message: bytes, patience_s: float) -> Reply:
        """Send a message and wait for the whole answer; raises TimeoutError after `patience_s`, OSError when nothing listens."""
        began_ns = time.monotonic_ns()
        connection = await self._connection()
        reply = Reply(began_ns=began_ns)
        try:
            await connection.call(message, patience_s)
        except BaseException:  # also when the caller is cancelled: what comes still would be taken for the next call's answer
            connection.transport.abort()
            raise
        reply.ended_ns = time.monotonic_ns()
        _read(reply, bytes(connection.received), connection.ended)
        if connection.closed or not connection.ended or reply.header("connection") == "close":
            connection.transport.abort()
        else:
            self._idle.append(connection)
        return reply

    async def fetch(self, path: str, body: object = None) -> Any:
        """What a JSON page says; a body is posted to it."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: 127.0.0.1:{self._port}\r\ncontent-length: {len(data)}\r\n\r\n"
        reply = await self.call(head.encode() + data, 30)
        if reply.status != 200:
            raise RuntimeError(f"{path} answered {reply.status}: {reply.body!r}")
        return json.loads(reply.body)

    async def _connection(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection
        return (await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port))[1]

    def close(self) -> None:
        for connection in self._idle:
            connection.transport.abort()


def _read(reply: Reply, received: bytes, ended: bool) -> None:
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return
    first, *lines = head.decode("latin-1").split("\r\n")
    reply.status = int(first.split(" ")[1])
    reply.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    chunked = reply.headers.get("transfer-encoding") == "chunked"
    reply.body, closed = unchunked(body) if chunked else (body, True)
    reply.whole = ended and closed


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """A chunked body without its coding, and whether it came to its proper end."""
    found = []
    while True:
        size, mark, rest = body.partition(b"\r\n")
        if not mark:
            return b"".join(found), False
        length = int(size, 16)
        found.append(rest[:length])
        if length == 0 or rest[length : length + 2] != b"\r\n":
            return b"".join(found), length == 0
        body = rest[length + 2 :]


def _is_answer(kind: str, body: bytes) -> bool:
    with suppress(ValueError):
        read = json.loads(body)
        return isinstance(read, dict) and {"chat": "choices", "responses": "output", "messages": "content"}[kind] in read
    return False


def _is_error(body: bytes) -> bool:
    data = body.rstrip(b"\n").rpartition(b"\n\n")[2].partition(b"data: ")[2]
    with suppress(ValueError):
        last = json.loads(data)
        return bool(last.get("error") or last.get("type") in ("error", "response.failed"))
    return False
