"""Requests and responses without a connection, to drive an `Application` in process."""

from collections.abc import Callable, Mapping

import msgspec

from holdfast.execution.upstream import Headers
from holdfast.http.message import Request

_NO_HEADERS: Mapping[str, str] = {}


def request(method: str, target: str, body: object = None, headers: Mapping[str, str] = _NO_HEADERS) -> Request:
    """A request from loopback; a `body` that is not bytes goes as JSON."""
    path, _, query = target.partition("?")
    data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Request(method=method.encode(), path=path.encode(), query=query.encode(), headers=pairs, body=data, peer="127.0.0.1")


class MemoryResponse:
    """A `holdfast.http.message.Response` that keeps what it is given.

    status: 0 until the answer begins. length: of a streamed one, where it was told. writes: the pieces of the body as they came. ended:
    properly; aborted: cut. As a connection does, it ignores calls after the end.
    """

    def __init__(self) -> None:
        self.disconnected: Callable[[], None] | None = None
        self.pausing: Callable[[], None] | None = None
        self.resuming: Callable[[], None] | None = None
        self.status = 0
        self.headers: Headers = ()
        self.length: int | None = None
        self.writes: list[bytes] = []
        self.ended = False
        self.aborted = False
        self._left = False

    @property
    def body(self) -> bytes:
        return b"".join(self.writes)

    @property
    def over(self) -> bool:
        """Nothing more can come."""
        return self.ended or self.aborted or self._left

    def json(self) -> object:
        return msgspec.json.decode(self.body)

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers)
        self.write(body)
        self.end()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        if not self.over:
            self.status, self.headers, self.length = status, headers, length

    def write(self, data: bytes) -> None:
        if not self.over and data:
            self.writes.append(data)

    def end(self) -> None:
        if not self.over:
            self.ended = True

    def abort(self) -> None:
        if not self.over:
            self.aborted = True

    def leave(self) -> None:
        """The client closes its connection."""
        if not self.over:
            self._left = True
            if self.disconnected is not None:
                self.disconnected()
