"""Lets an `Application`, such as the simulated provider's, answer what a gateway in memory sends to its upstream."""

from collections.abc import Callable

from holdfast.errors import ConnectionCut, GarbageReceived
from holdfast.execution.upstream import Headers
from holdfast.http.message import Application, Request
from holdfast.testing.upstream import MemoryExchange


def serve(exchange: MemoryExchange, application: Application) -> None:
    """Hand the request over; the exchange hears what the application answers, as a connection between them would have told it."""
    sent = exchange.request
    path, _, query = sent.target.partition(b"?")
    asked = Request(method=sent.method, path=path, query=query, headers=list(sent.headers), body=sent.body, peer="127.0.0.1")
    application(asked, ServedResponse(exchange))


class ServedResponse:
    """A `holdfast.http.message.Response` whose client is the exchange."""

    def __init__(self, exchange: MemoryExchange) -> None:
        self.disconnected: Callable[[], None] | None = None
        self.pausing: Callable[[], None] | None = None
        self.resuming: Callable[[], None] | None = None
        self._exchange = exchange
        exchange.left = self._left

    def send(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers)
        self.write(body)
        self.end()

    def start(self, status: int, headers: Headers, length: int | None = None) -> None:
        if any(name[:1] < b"!" for name, _ in headers):  # a client's parser goes no further than this
            self._exchange.fail(GarbageReceived("sent what is not HTTP"))
        else:
            self._exchange.start(status, headers)

    def write(self, data: bytes) -> None:
        if data:
            self._exchange.data(data)

    def end(self) -> None:
        self._exchange.end()

    def abort(self) -> None:
        self._exchange.fail(ConnectionCut("closed the connection before the answer's end"))

    def _left(self) -> None:
        if self.disconnected is not None:
            self.disconnected()
