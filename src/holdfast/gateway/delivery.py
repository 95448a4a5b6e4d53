"""The way back to the agent: whole answers, streams, failures as they came, refusals in the agent's own format."""

from holdfast.errors import ConnectFailed, ConnectionCut, TimedOut
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway.endpoints import Endpoint, error_format
from holdfast.gateway.headers import downstream_headers
from holdfast.gateway.recording import describe_failure
from holdfast.gateway.refusals import upstream_failed
from holdfast.http.message import Response
from holdfast.wire.call import Refusal

_JSON = (b"content-type", b"application/json")
_EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
_DO_NOT_RETRY = (b"x-should-retry", b"false")
_DO_RETRY = (b"x-should-retry", b"true")
_PATIENCE_S = 60
"""The longest wait that an SDK should sit out by itself; one of them would for seven weeks."""
_UNAVAILABLE_S = 5


class Delivery:
    """Answers one request. `own` are the headers in which Holdfast says what it did."""

    def __init__(self, response: Response, endpoint: Endpoint) -> None:
        self._response = response
        self._format = endpoint.format
        self._refusals = endpoint.format or error_format(endpoint.family)
        self.write = response.write  # the way of every streamed piece
        self.own: list[tuple[bytes, bytes]] = []
        self.started = False

    def start(self, status: int, headers: Headers, data: bytes, *, length: int | None = None) -> None:
        """Begin to stream what comes; length: of all of it, where that is known."""
        self.started = True
        self._response.start(status, downstream_headers(headers, encoded=self._format is None) + self.own, length)
        self.write(data)

    def end(self, held: bytes = b"") -> None:
        self.write(held)
        self._response.end()

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self._response.send(status, downstream_headers(headers) + self.own, body)

    def canned(self, body: bytes, *, stream: bool) -> None:
        """An answer of the gateway's own."""
        if stream:
            self.start(200, (_EVENT_STREAM,), body)
            self.end()
        else:
            self.whole(200, (_JSON,), body)

    def failure(self, result: AttemptResult, served_by: str, *, retried: bool) -> None:
        """Pass a failure on as the agent would have seen it without Holdfast.

        An error answer keeps its status and body, and so does one that its format does not allow. What was cut is cut, without its end
        being faked. What no upstream said becomes 503 (no connection), 504 (time-out) or 502.
        """
        cut = isinstance(result.error, ConnectionCut)
        if self.started and result.stream is None and not result.committed:  # of an attempt to go on with what had broken off
            self.refusal(upstream_failed(502, describe_failure(result, served_by)))
        elif self.started or (result.stream is not None and (cut or result.error is None)):
            if not self.started:
                self.start(result.status, result.headers, b"")
            self._broken_stream(result, served_by)
        elif cut:
            self._response.abort()
        elif result.whole:
            headers = downstream_headers(result.headers)
            if retried:  # the retries that were due are done: the SDK's own would multiply them
                headers = [pair for pair in headers if pair[0] != _DO_NOT_RETRY[0]] + [_DO_NOT_RETRY]
            self._response.send(result.status, headers + self.own, result.body)
        else:
            status = 504 if isinstance(result.error, TimedOut) else 503 if isinstance(result.error, ConnectFailed) else 502
            self.refusal(upstream_failed(status, describe_failure(result, served_by)))

    def _broken_stream(self, result: AttemptResult, served_by: str) -> None:
        if result.error is None:
            self.end(result.held)
        elif isinstance(result.error, ConnectionCut) or self._format is None:
            self.write(result.held)
            self._response.abort()
        else:  # without the piece of an event that is held: ours could not be read behind it
            self.end(self._format.error_event(f"Holdfast: {describe_failure(result, served_by)}"))

    def refusal(self, refusal: Refusal) -> None:
        """Deny the call in the agent's own format; inside a started stream as its error event."""
        if not self.started:
            after_s = refusal.retry_after_s
            retry = _DO_NOT_RETRY if after_s is None or after_s > _PATIENCE_S or not refusal.by_sdk else _DO_RETRY
            headers = [_JSON, retry, (b"x-holdfast-refusal", refusal.kind.encode("ascii"))]
            if after_s is not None or refusal.status == 503:
                headers.append((b"retry-after", b"%d" % (_UNAVAILABLE_S if after_s is None else after_s)))
            self._response.send(refusal.status, headers + self.own, self._refusals.refusal(refusal))
        elif self._format is not None:
            self.end(self._format.error_event(refusal.message, refusal.kind))
        else:
            self._response.abort()
