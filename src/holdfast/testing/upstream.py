"""An upstream without connections: it keeps what is sent to it, and answers when the test says so."""

from collections.abc import Callable

from holdfast.errors import UpstreamError
from holdfast.execution.upstream import Headers, Receiver, UpstreamRequest

_JSON: Headers = ((b"content-type", b"application/json"),)
_EVENTS: Headers = ((b"content-type", b"text/event-stream"),)


class MemoryExchange:
    """A `holdfast.execution.upstream.Exchange` whose answer the test gives; after its end, or when cancelled, it says nothing more.

    left: while set, hears of the cancelling.
    """

    def __init__(self, request: UpstreamRequest, receiver: Receiver) -> None:
        self.request = request
        self.cancelled = False
        self.paused = False
        self.over = False
        self.left: Callable[[], None] | None = None
        self._receiver = receiver

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        if self.over:
            return
        self.cancelled = self.over = True
        if self.left is not None:
            self.left()

    def start(self, status: int = 200, headers: Headers = _EVENTS) -> None:
        """The head of an answer, by default of an event stream."""
        if not self.over:
            self._receiver.response_started(status, headers)

    def data(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.over:
                self._receiver.response_data(piece)

    def end(self) -> None:
        if not self.over:
            self.over = True
            self._receiver.response_ended()

    def fail(self, error: UpstreamError) -> None:
        if not self.over:
            self.over = True
            self._receiver.response_failed(error)

    def answer(self, body: bytes, status: int = 200, headers: Headers = _JSON) -> None:
        """A whole answer at once."""
        self.start(status, headers)
        if body:
            self.data(body)
        self.end()

    def stream(self, *pieces: bytes) -> None:
        """A whole event stream at once."""
        self.start()
        self.data(*pieces)
        self.end()


class MemoryUpstream:
    """A `holdfast.execution.upstream.Upstream`. exchanges: all that was sent, in order. refusing: while set, sending fails with it at
    once, inside `send`, as the interface allows. serving: while set, hears of each exchange, to answer it when `send` has returned."""

    def __init__(self) -> None:
        self.exchanges: list[MemoryExchange] = []
        self.refusing: UpstreamError | None = None
        self.serving: Callable[[MemoryExchange], None] | None = None

    @property
    def latest(self) -> MemoryExchange:
        return self.exchanges[-1]

    def send(self, request: UpstreamRequest, receiver: Receiver) -> MemoryExchange:
        exchange = MemoryExchange(request, receiver)
        self.exchanges.append(exchange)
        if self.refusing is not None:
            exchange.fail(self.refusing)
        elif self.serving is not None:
            self.serving(exchange)
        return exchange
