"""What the server hands to its application, and how the application answers."""

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from holdfast.execution.upstream import Headers
from holdfast.http.upload import Upload


class Request(Struct, kw_only=True):
    """A request, complete but for an `upload`. `path` is the undecoded path, `query` what follows `?`, both as sent; `peer` the client's
    IP address. upload: the body of one that is relayed as it comes, where not all of it has come yet; `body` is empty then."""

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    peer: str
    upload: Upload | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Response(Protocol):
    """The way back to the client of one request. Calls after the client left, or after the end, do nothing."""

    disconnected: Callable[[], None] | None
    """Set by the application: called once when the client leaves before the end of the answer."""
    pausing: Callable[[], None] | None
    """Set by the application: called when the client reads too slowly; `resuming` when there is room again."""
    resuming: Callable[[], None] | None

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole answer with its length."""

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        """Begin a streamed answer: of `length` bytes where that is known, else chunked (to an HTTP/1.0 client until close)."""

    def write(self, data: bytes) -> None: ...

    def end(self) -> None:
        """The proper end of a streamed answer."""

    def abort(self) -> None:
        """Cut the connection without a proper end, so that the client sees that the answer is not whole."""


Application = Callable[[Request, Response], None]
