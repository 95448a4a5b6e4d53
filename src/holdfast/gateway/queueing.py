"""Queue instead of drop: a call that no target can serve now waits, and then begins again at the first target of its route."""

from collections.abc import Sequence
from typing import Protocol

from holdfast.clock import SECOND
from holdfast.errors import TimedOut, Withdrawn
from holdfast.events.error import ErrorType
from holdfast.execution.admission_queue import Outcome, Place
from holdfast.execution.attempt import AttemptResult
from holdfast.gateway import refusals
from holdfast.gateway.gate import Entry
from holdfast.gateway.options import Reply
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import CallRecord, describe_failure, error_type_of
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request
from holdfast.policy.retry import RETRYABLE_STATUS
from holdfast.policy.waiting_line import rank_of
from holdfast.wire.call import Answer, Refusal
from holdfast.wire.quota import retry_after_ns

_UNAVAILABLE_STATUS = RETRYABLE_STATUS - {409}

_UNAVAILABLE_KINDS = frozenset({"circuit_open", "provider_rate_limited"})
"""Refusals that say that a target may serve the call later."""

_LOOK_AGAIN_NS = 5 * SECOND
"""A person may close a breaker before its time, and to look costs nobody anything."""


class Waiter(Protocol):
    """The call that waits."""

    def again(self) -> None:
        """Begin anew."""

    def unserved(self, refusal: Refusal) -> None:
        """End."""

    def broke(self, defect: Exception) -> None:
        """A defect of our own."""


class Queueing:
    """One call's waits, from its first failure for which the call itself is not to blame to its end."""

    __slots__ = ("_attempts", "_entry", "_look_again", "_missed", "_parts", "_place", "_record", "_said", "_until_ns", "_waiter", "_why")

    def __init__(self, parts: Parts, entry: Entry, record: CallRecord, request: Request, waiter: Waiter) -> None:
        asked = request.header(b"x-holdfast-priority")
        rank = rank_of("" if asked is None else asked.decode("latin-1").strip().lower(), entry.agent.queue.priority)
        self._parts = parts
        self._entry = entry
        self._record = record
        self._waiter = waiter
        self._place = Place(entry.agent.name, rank, len(request.body), parts.clock.monotonic_ns())
        self._missed: dict[str, int] = {}
        self._look_again: dict[str, int] = {}
        self._attempts = 0
        self._why: ErrorType = "api_error"
        self._said = ""
        self._until_ns: int | None = None

    def failed(self, result: AttemptResult, answer: Answer | None, destination: Destination) -> None:
        """An attempt has, and is not repeated here."""
        self._why, self._said = error_type_of(result), describe_failure(result, destination.label)
        if is_unavailable(result, answer):
            clock = self._parts.clock
            self._missed[destination.label] = clock.monotonic_ns() + (retry_after_ns(result.headers, clock.wall_ns()) or 0)

    def passed_over(self, refusal: Refusal, destination: Destination | Reply) -> None:
        """A target could not even be tried."""
        if refusal.kind in _UNAVAILABLE_KINDS and isinstance(destination, Destination):
            now = self._parts.clock.monotonic_ns()
            self._missed[destination.label] = now + (refusal.retry_after_s or 0) * SECOND
            if refusal.kind == "circuit_open":
                self._look_again[destination.label] = now + _LOOK_AGAIN_NS

    def is_held_back(self, destinations: Sequence[Destination | Reply]) -> bool:
        """Whether others wait for all of them already: then the call is to wait behind them."""
        labels = [destination.label for destination in destinations if isinstance(destination, Destination)]
        if len(labels) < len(destinations) or not self._parts.queue.holds_back(labels):
            return False
        self._missed = dict.fromkeys(labels, 0)
        if not self.may_wait:
            self._missed = {}
        return bool(self._missed)

    @property
    def may_wait(self) -> bool:
        """Whether one of the targets may be worth trying again in time."""
        return self._parts.queue.is_hopeful(self._missed, self._until())

    def wait(self) -> None:
        """Only where it may; the waiter hears of the end, perhaps before this returns."""
        missed = {label: min(until_ns, self._look_again.get(label, until_ns)) for label, until_ns in self._missed.items()}
        self._missed, self._look_again = {}, {}
        self._until_ns = self._until()
        self._parts.queue.wait(self._place, missed, self._until_ns, self._over, tried=self._tried)

    def leave(self) -> None:
        """The call has ended."""
        waited = self._place.waiting
        self._parts.queue.leave(self._place, tried=self._tried)
        if waited:
            self._record.waited(self._place.waited_ns, self._place.keys, self._why)

    def _until(self) -> int:
        """When its waiting must be over: counted from its first wait."""
        if self._until_ns is not None:
            return self._until_ns
        total_at_ns, longest_ns = self._entry.total_at_ns, self._entry.agent.queue.longest_ns
        return total_at_ns if longest_ns is None else min(total_at_ns, self._parts.clock.monotonic_ns() + longest_ns)

    @property
    def _tried(self) -> bool:
        return self._record.attempts > self._attempts

    def _over(self, outcome: Outcome) -> None:
        try:
            self._go_on(outcome)
        except Exception as defect:  # noqa: BLE001 - a timer's callback: nobody above would tell the agent
            self._waiter.broke(defect)

    def _go_on(self, outcome: Outcome) -> None:
        place = self._place
        self._attempts = self._record.attempts
        if place.waited_ns:
            self._record.waited(place.waited_ns, place.keys, self._why)
        if outcome == "go":
            self._waiter.again()
        elif outcome == "closing":
            self._waiter.unserved(refusals.ending())
        else:
            refusal = refusals.queue_full if outcome == "full" else refusals.queue_timeout
            self._waiter.unserved(refusal(place.total_ns, place.keys, -(-place.retry_after_ns // SECOND), self._said))


def is_unavailable(result: AttemptResult, answer: Answer | None) -> bool:
    """Whether an attempt failed, before its answer began, in a way that says nothing against the call itself."""
    if result.committed:
        return False
    broken_stream = result.stream is not None and (answer is None or not answer.complete)
    return result.error is not None or broken_stream or result.status in _UNAVAILABLE_STATUS


def report(parts: Parts, label: str, result: AttemptResult, answer: Answer | None) -> None:
    """Tell those who wait for a target how an attempt at it has ended. Of one that had begun to answer they know."""
    error = result.error
    if result.committed or isinstance(error, Withdrawn) or (isinstance(error, TimedOut) and error.kind == "total"):
        return
    if is_unavailable(result, answer):
        parts.queue.failed(label, result.began_ns, retry_after_ns(result.headers, parts.clock.wall_ns()) or 0)
    else:
        parts.queue.recovered(label, result.began_ns)
