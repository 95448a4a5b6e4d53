"""The answer of a tool on its way to the agent: kept where it must be read whole or may be replaced, else passed on as it comes."""

from holdfast.errors import ConnectFailed, ConnectionCut, MalformedAnswer, TimedOut
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.recording import describe_failure
from holdfast.gateway.tool_request import content_length
from holdfast.gateway.tool_traffic import Passage, Traffic
from holdfast.http.message import Response
from holdfast.wire.call import Refusal

_JSON = (b"content-type", b"application/json")
_AS_IT_IS = Passage()
_ENCODING = b"content-encoding"


class ToolAnswer:
    """One for all attempts of a call. `own` are the headers in which Holdfast says what it did."""

    def __init__(self, response: Response, delivery: Delivery, traffic: Traffic) -> None:
        self.own: list[tuple[bytes, bytes]] = []
        self._response = response
        self._delivery = delivery
        self._traffic = traffic
        self._passage = _AS_IT_IS
        self._kept: list[bytes] | None = None
        self._size = 0
        self._left: int | None = None
        self._last = b""

    def again(self) -> None:
        """Another attempt begins."""
        self._passage, self._kept, self._size, self._last = _AS_IT_IS, None, 0, b""

    def begin(self, result: AttemptResult, headers: Headers) -> None:
        """The head has come; raises MalformedAnswer where nothing of the rest must pass."""
        self._kept = []
        self._passage = passage = self._traffic.passage(result.status, headers)
        if not passage.keep:
            self._commit(result, headers)

    def take(self, result: AttemptResult, data: bytes) -> None:
        """A piece of the body has come; raises MalformedAnswer."""
        passage, kept = self._passage, self._kept
        if kept is not None and not passage.overflows:  # to be read whole
            self._keep(data)
            if self._size > passage.keep:
                raise MalformedAnswer(f"answer is longer than {passage.keep >> 20} MiB")
            return
        if passage.through is not None:
            data = passage.through.feed(data)
        if kept is None:
            self._pass(data)
            return
        self._keep(data)
        if self._size > passage.keep:
            self._commit(result, [pair for pair in result.headers if pair[0] != _ENCODING])
            for piece in kept:
                self._pass(piece)

    def complete(self, result: AttemptResult) -> None:
        """The last piece has come, or none will; what was kept becomes the result's body. Raises MalformedAnswer."""
        passage, kept = self._passage, self._kept
        if kept is None:
            if passage.through is not None and result.error is None:
                self._last += passage.through.flush()
            return
        if result.error is not None and not passage.overflows:
            return  # a part of what is read only as a whole
        body = b"".join(kept)
        if passage.through is not None and result.error is None:
            body = body + passage.through.flush() if passage.overflows else passage.through.feed(body)
        result.body = body

    def finish(self, result: AttemptResult) -> None:
        """The proper end of an answer, after its record was written."""
        self._delivery.own = self.own
        if result.committed:
            self._delivery.end(self._last)
        else:
            self._delivery.whole(result.status, result.headers, result.body)

    def failed(self, result: AttemptResult, served_by: str, *, retried: bool) -> None:
        """Pass a failure on as the agent would have seen it without Holdfast."""
        if not self._delivery.started:
            self._delivery.own = self.own
        if result.committed and result.error is None:
            self._delivery.end(self._last)
            return
        resumable = result.committed and isinstance(result.error, ConnectionCut)  # the cut is how a client knows
        if result.error is not None and not resumable and self._reply(_unavailable(result, served_by)):
            return
        self._delivery.failure(result, served_by, retried=retried)

    def refused(self, refusal: Refusal) -> None:
        if not self._reply(refusal):
            self._delivery.refusal(refusal)

    def _reply(self, refusal: Refusal) -> bool:
        """Deny in the tool's own protocol, if it has a way to."""
        started = self._delivery.started
        reply = self._traffic.refusal(refusal, started=started)
        if reply is None:
            return False
        status, body = reply
        if started:
            self._delivery.end(body)
        else:
            refused = (b"x-holdfast-refusal", refusal.kind.encode("ascii"))
            self._response.send(status, [_JSON, refused, *self.own], body)
        return True

    def _keep(self, data: bytes) -> None:
        assert self._kept is not None
        self._kept.append(data)
        self._size += len(data)

    def _commit(self, result: AttemptResult, headers: Headers) -> None:
        """From here on the attempt cannot be replaced."""
        self._kept = None
        result.committed = True
        length = content_length(headers) if self._passage.through is None else None
        self._left = length
        self._delivery.own = self.own
        self._delivery.start(result.status, headers, b"", length=length)

    def _pass(self, data: bytes) -> None:
        """The last piece of a body whose length is known waits for its record."""
        if self._left is not None:
            self._left -= len(data)
            if not self._left:
                self._last = data
                return
        self._delivery.write(data)


def _unavailable(result: AttemptResult, served_by: str) -> Refusal:
    status = 504 if isinstance(result.error, TimedOut) else 503 if isinstance(result.error, ConnectFailed) else 502
    return Refusal(status=status, kind="upstream_failed", message=f"{describe_failure(result, served_by)}.")
