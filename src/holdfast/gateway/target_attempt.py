"""One attempt of a call at one of its targets, from the money reserved for it to its settlement."""

from typing import Protocol

from holdfast.errors import ConnectFailed, ConnectionCut, Withdrawn
from holdfast.execution.attempt import Attempt, AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway.admission import Cost, output_to_send, settlement
from holdfast.gateway.asked import Asked
from holdfast.gateway.gate import Admitted, killed
from holdfast.gateway.incoming import answers_of, without_secret
from holdfast.gateway.outgoing import attempt_options, upstream_request
from holdfast.gateway.parts import Parts
from holdfast.gateway.queueing import report
from holdfast.gateway.translated import TranslatedStream
from holdfast.http.message import Request
from holdfast.wire.call import Answer, Rewrite, StreamReader

_AS_SENT = Rewrite()


class Owner(Protocol):
    """The call that an attempt is made for."""

    def committed(self, attempt: "TargetAttempt", status: int, headers: Headers, data: bytes) -> None:
        """The first bytes that must be passed on; from here on the attempt cannot be replaced."""

    def data(self, attempt: "TargetAttempt", data: bytes) -> None: ...

    def ended(self, attempt: "TargetAttempt", result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        """It is settled; answer: in the caller's format, as far as it came."""

    def broke(self, defect: Exception) -> None:
        """A defect of our own."""


class TargetAttempt:
    """Settles itself, however it ends, and tells its owner; what becomes of the call is the owner's to decide.

    number: which one of its call's, from 1, in the order in which they began. rewrite: what was changed of the body. sent: bytes of it.
    """

    __slots__ = ("__weakref__", "_admitted", "_attempt", "_owner", "_parts", "asked", "number", "rewrite", "sent")

    def __init__(self, parts: Parts, asked: Asked, admitted: Admitted, owner: Owner, number: int) -> None:
        self.asked = asked
        self.number = number
        self.rewrite = _AS_SENT
        self.sent = 0
        self._parts = parts
        self._admitted = admitted
        self._owner = owner
        self._attempt: Attempt | None = None

    @property
    def stream(self) -> StreamReader | None:
        """The streamed answer that is being read, if it is one."""
        return None if self._attempt is None else self._attempt.result.stream

    def start(self, request: Request, idempotency_key: str) -> None:
        """Send the request. The owner may hear of the end before this returns."""
        asked, admitted = self.asked, self._admitted
        entry, body, provider = asked.entry, asked.body, asked.destination.provider
        call, wire_format = entry.call, entry.endpoint.format
        if wire_format is not None:
            granted = admitted.reservation
            self.rewrite = rewrite = Rewrite(
                model=asked.destination.model if asked.destination.model != call.model else None,
                max_output=output_to_send(admitted.bounds, call, granted.usd, granted.tokens),
                modern=provider.kind.modern,
                usage_in_stream=call.stream,
            )
            if not rewrite.leaves(call):
                body = wire_format.rewrite(body, call, rewrite)
        self.sent = len(body)
        outgoing = upstream_request(request, asked, body, self.withdrawn, idempotency_key)
        options = attempt_options(entry, self._parts.clock.monotonic_ns(), last=asked.last)
        read_stream = None if wire_format is None else self._stream_reader
        self._attempt = attempt = Attempt(self._parts.upstream, outgoing, options, self._parts.clock, self, read_stream)
        attempt.start()

    def cancel(self, why: str) -> tuple[AttemptResult, Answer | None, Cost]:
        """Drop it at once and settle what may have been generated; the owner hears nothing more."""
        attempt, self._attempt = self._attempt, None
        assert attempt is not None
        self._admitted.passage.give_back()  # that it is dropped says nothing about its target
        result = attempt.cancel()
        result.error = ConnectionCut(why)
        heard, answer = answers_of(result, self.asked)
        return result, answer, self._settle(result, heard)

    def forfeit(self) -> None:
        """After a defect: drop it, and count what was reserved for it as spent where it was not settled already."""
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        self._admitted.passage.give_back()
        reservation = self._admitted.reservation
        reservation.settle(reservation.usd, reservation.tokens)

    def withdrawn(self) -> bool:
        """Whether it must not be sent any more."""
        return killed(self._parts.gate.kills(), self.asked.entry, self.asked.destination) is not None

    def pause(self) -> None:
        if self._attempt is not None:
            self._attempt.pause()

    def resume(self) -> None:
        if self._attempt is not None:
            self._attempt.resume()

    def attempt_committed(self, status: int, headers: Headers, data: bytes) -> None:
        asked = self.asked
        self._parts.gate.heard(asked.entry, asked.destination, self._admitted.turn, status, headers)
        if self._parts.queue.awaited and self._attempt is not None:
            self._parts.queue.recovered(asked.destination.label, self._attempt.result.began_ns)
        self._owner.committed(self, status, headers, data)

    def attempt_data(self, data: bytes) -> None:
        self._owner.data(self, data)

    def attempt_ended(self, result: AttemptResult) -> None:
        self._attempt = None
        if result.status >= 400:
            result.body = without_secret(result.body, self.asked.destination)
        heard, answer = answers_of(result, self.asked)
        cost = self._settle(result, heard)
        if self._parts.queue.awaited:
            report(self._parts, self.asked.destination.label, result, heard)
        self._owner.ended(self, result, answer, cost)

    def attempt_broke(self, defect: Exception) -> None:
        self._owner.broke(defect)

    def _settle(self, result: AttemptResult, heard: Answer | None) -> Cost:
        asked, admitted = self.asked, self._admitted
        reservation = admitted.reservation
        if isinstance(result.error, ConnectFailed | Withdrawn):
            reservation.cancel()
            cost = Cost(0, 0, "free", None)
        else:
            cost = settlement(result, heard, admitted.bounds, reservation.usd, reservation.tokens)
            reservation.settle(cost.charged, cost.tokens)
        self._parts.gate.ended(asked.entry, asked.destination, admitted, result, cost)
        return cost

    def _stream_reader(self) -> StreamReader:
        asked = self.asked
        wire_format = asked.entry.endpoint.format
        assert wire_format is not None
        reader = wire_format.stream(asked.entry.call, self.rewrite)
        if asked.translation is None or asked.spoken is None:
            return reader
        return TranslatedStream(reader, asked.translation.stream(asked.source), asked.spoken.stream(asked.call, _AS_SENT))
