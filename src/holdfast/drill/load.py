"""The callers of a drill: calls at a steady rate, and streams that stay open, over the data plane's own HTTP client."""

from collections.abc import Callable

import msgspec

from holdfast.clock import MILLISECOND, SECOND, Clock, Timer
from holdfast.errors import UpstreamError
from holdfast.execution.upstream import Exchange, Headers, Origin, UpstreamRequest
from holdfast.http.client import Client

MARK = b"x-drill"
_TICK_NS = 10 * MILLISECOND
_PATH = b"/v1/chat/completions"
_TAIL = 2048
_KILLED = b'"code":"killed"'


class Load:
    """Calls at `rate` a second from `start` to `stop`. mark: whether calls say that they began after the command had returned.

    statuses: of the answers so far, by mark and status; 0 is no answer. served: hears of every 200.
    """

    def __init__(self, client: Client, gateway: Origin, rate: int, clock: Clock) -> None:
        self.mark = False
        self.statuses: dict[tuple[bool, int], int] = {}
        self.served: Callable[[], None] = lambda: None
        self._client = client
        self._gateway = gateway
        self._rate = rate
        self._clock = clock
        self._due = 0.0
        self._timer: Timer | None = None

    def start(self) -> None:
        self._timer = self._clock.call_later(_TICK_NS, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def count(self, status: int, *, marked: bool) -> int:
        return self.statuses.get((marked, status), 0)

    def answered(self, status: int, marked: bool) -> None:
        self.statuses[marked, status] = self.statuses.get((marked, status), 0) + 1
        if status == 200:
            self.served()

    def _tick(self) -> None:
        self.start()
        self._due += self._rate * _TICK_NS / SECOND
        while self._due >= 1:
            self._due -= 1
            self._client.send(call(self._gateway, "sim-ok", marked=self.mark), _Answer(self, self.mark))


class _Answer:
    """Receives one answer."""

    def __init__(self, load: Load, marked: bool) -> None:
        self._load = load
        self._marked = marked
        self._status = 0

    def response_started(self, status: int, headers: Headers) -> None:
        self._status = status

    def response_data(self, data: bytes) -> None:
        pass

    def response_ended(self) -> None:
        self._load.answered(self._status, self._marked)

    def response_failed(self, error: UpstreamError) -> None:
        self._load.answered(0, self._marked)


class OpenStream:
    """A stream that the provider would go on with for a long time. flowing: its first bytes have come. ended_ns: monotonic, 0 while it
    is open. well_formed: it ended properly, with the kill switch's error event for its last word."""

    def __init__(self, clock: Clock) -> None:
        self.flowing = False
        self.ended_ns = 0
        self.well_formed = False
        self._clock = clock
        self._tail = b""

    def open(self, client: Client, gateway: Origin, tokens: int, gap_ms: int) -> Exchange:
        return client.send(call(gateway, f"sim-stream-{tokens}-{gap_ms}", stream=True), self)

    def response_started(self, status: int, headers: Headers) -> None:
        pass

    def response_data(self, data: bytes) -> None:
        self.flowing = True
        self._tail = (self._tail + data)[-_TAIL:]

    def response_ended(self) -> None:
        self.ended_ns = self._clock.monotonic_ns()
        last = self._tail.removesuffix(b"\n\n").rpartition(b"\n\n")[2]
        self.well_formed = self._tail.endswith(b"\n\n") and last.startswith(b'data: {"error"') and _KILLED in last

    def response_failed(self, error: UpstreamError) -> None:
        self.ended_ns = self._clock.monotonic_ns()


def call(gateway: Origin, model: str, *, stream: bool = False, marked: bool = False) -> UpstreamRequest:
    """One call of an agent."""
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "A drill."}]}
    headers: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
    if marked:
        headers.append((MARK, b"after"))
    return UpstreamRequest(
        origin=gateway, method=b"POST", target=_PATH, headers=headers, body=msgspec.json.encode(body), connect_timeout_ns=5 * SECOND
    )
