"""The interface to an upstream: send one request, hear about its answer through callbacks, pause, resume, cancel.

`holdfast.http.client` implements it for HTTP/1.1; another transport is a second implementation.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec import Struct

from holdfast.errors import UpstreamError

Headers = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, in the order of the wire."""


class Origin(Struct, frozen=True):
    """Where an upstream listens."""

    host: str
    port: int
    tls: bool

    @property
    def authority(self) -> str:
        """Value of the Host header: the port is left out where it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


class BodySink(Protocol):
    """Takes a body that comes piece by piece: data…, then ended, unless its `BodySource` breaks off and says nothing more."""

    def body_data(self, data: bytes) -> None: ...

    def body_ended(self) -> None: ...


class BodySource(Protocol):
    """A request's body that comes piece by piece. length: in bytes, where it is known beforehand.

    Nothing is given before `start`. What breaks off says nothing: whoever started the request hears of that, and cancels it.
    """

    length: int | None

    def start(self, sink: BodySink) -> None:
        """Give to `sink` what has come and what comes, possibly before this returns; once only."""

    def pause(self) -> None:
        """Give nothing for now (back-pressure); idempotent."""

    def resume(self) -> None: ...

    def stop(self) -> None:
        """Give nothing any more; idempotent."""


def _stands() -> bool:
    return False


class UpstreamRequest(Struct, frozen=True, kw_only=True):
    """One request. `headers` without host, content-length and connection, which the transport adds. withdrawn: asked directly before
    the request is sent, where something had to be awaited first; it then fails with `Withdrawn`. upload: the body where it comes piece by
    piece; `body` is empty then, the connection is never a kept one, and the answer may begin and end before the upload does. once: it must
    not be sent a second time, whatever becomes of the connection that took it."""

    origin: Origin
    method: bytes
    target: bytes
    headers: Headers
    body: bytes
    connect_timeout_ns: int
    upload: BodySource | None = None
    once: bool = False
    withdrawn: Callable[[], bool] = _stands


class Receiver(Protocol):
    """Hears about one answer: started, data…, then exactly one of ended or failed. Nothing is called after `cancel`."""

    def response_started(self, status: int, headers: Headers) -> None: ...

    def response_data(self, data: bytes) -> None:
        """Body bytes with the transfer coding removed, the content coding untouched."""

    def response_ended(self) -> None: ...

    def response_failed(self, error: UpstreamError) -> None: ...


class Exchange(Protocol):
    """A request on its way."""

    def pause(self) -> None:
        """Stop reading the answer (back-pressure); idempotent."""

    def resume(self) -> None: ...

    def cancel(self) -> None:
        """Drop the answer at once and close its connection; idempotent, harmless after the end."""


class Upstream(Protocol):
    def send(self, request: UpstreamRequest, receiver: Receiver) -> Exchange:
        """Start a request. May call the receiver before it returns only with `response_failed`."""
