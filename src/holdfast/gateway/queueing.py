"""Queue instead of drop: a call that no target can serve now waits, and then begins again at the first target of its route."""

from collections.abc import Callable, Iterable

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed, TimedOut, Withdrawn
from holdfast.execution.admission_queue import AdmissionQueue, Outcome, Place
from holdfast.execution.attempt import AttemptResult
from holdfast.gateway import refusals
from holdfast.gateway.gate import Entry
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import CallRecord, describe_failure
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request
from holdfast.policy.retry import RETRYABLE_STATUS
from holdfast.policy.waiting_line import rank_of
from holdfast.wire.call import Refusal
from holdfast.wire.quota import retry_after_ns

_UNAVAILABLE_STATUS = RETRYABLE_STATUS - {409}

_UNAVAILABLE_KINDS = frozenset({"circuit_open", "provider_rate_limited"})
"""Refusals that say that a target may serve the call later."""


class Queueing:
    """One call's waits. again: begins anew. refuse: ends the call."""

    __slots__ = ("_again", "_attempts", "_entry", "_last", "_missed", "_parts", "_place", "_record", "_refuse", "_until_ns")

    def __init__(
        self, parts: Parts, entry: Entry, record: CallRecord, request: Request, again: Callable[[], None], refuse: Callable[[Refusal], None]
    ) -> None:
        asked = request.header(b"x-holdfast-priority")
        options, now = entry.agent.queue, parts.clock.monotonic_ns()
        rank = rank_of(None if asked is None else asked.decode("latin-1"), options.priority)
        self._parts = parts
        self._entry = entry
        self._record = record
        self._again = again
        self._refuse = refuse
        self._place = Place(entry.agent.name, rank, len(request.body), now)
        self._missed: dict[str, int] = {}
        self._attempts = 0
        self._last: AttemptResult | None = None
        self._until_ns = entry.total_at_ns if options.longest_ns is None else min(entry.total_at_ns, now + options.longest_ns)

    def failed(self, result: AttemptResult, destination: Destination) -> None:
        """An attempt has, and is not repeated here."""
        self._last = result
        # Nobody knows whether a tool may be asked twice: only what never reached it waits.
        if is_unavailable(result) if not destination.tool else isinstance(result.error, ConnectFailed):
            clock = self._parts.clock
            self._missed[destination.label] = clock.monotonic_ns() + (retry_after_ns(result.headers, clock.wall_ns()) or 0)

    def passed_over(self, refusal: Refusal, label: str) -> None:
        """A target could not even be tried."""
        if refusal.kind in _UNAVAILABLE_KINDS:
            self._missed[label] = self._parts.clock.monotonic_ns() + (refusal.retry_after_s or 0) * SECOND

    def held_back(self, labels: Iterable[str]) -> None:
        """Others wait for all of them already."""
        self._missed = dict.fromkeys(labels, 0)

    @property
    def may_wait(self) -> bool:
        """Whether one of the targets may be worth trying again in time."""
        return self._parts.queue.is_hopeful(self._missed, self._until_ns)

    def wait(self) -> None:
        """Only where it may; the call goes on, perhaps before this returns, with `again` or `refuse`."""
        missed, self._missed = self._missed, {}
        self._parts.queue.wait(self._place, missed, self._until_ns, self._over, tried=self._tried)

    def leave(self) -> None:
        """The call has ended."""
        waited = self._place.waiting
        self._parts.queue.leave(self._place, tried=self._tried)
        if waited:
            self._record.waited(self._place.waited_ns, self._place.keys, self._last)

    @property
    def _tried(self) -> bool:
        return self._record.attempts > self._attempts

    def _over(self, outcome: Outcome) -> None:
        place = self._place
        self._attempts = self._record.attempts
        if place.waited_ns:
            self._record.waited(place.waited_ns, place.keys, self._last)
        if outcome == "go":
            self._again()
        elif outcome == "closing":
            self._refuse(refusals.ending())
        else:
            after_s, said = -(-place.retry_after_ns // SECOND), "" if self._last is None else describe_failure(self._last, "")
            refusal = refusals.queue_full if outcome == "full" else refusals.queue_timeout
            self._refuse(refusal(place.total_ns, place.keys, after_s, said))


def is_unavailable(result: AttemptResult) -> bool:
    """Whether an attempt failed, before its answer began, in a way that says nothing against the call itself."""
    if result.committed:
        return False
    return result.error is not None or result.stream is not None or result.status in _UNAVAILABLE_STATUS


def report(queue: AdmissionQueue, label: str, result: AttemptResult, wall_ns: int) -> None:
    """Tell those who wait for a target how an attempt at it has ended."""
    error = result.error
    if result.committed or isinstance(error, Withdrawn) or (isinstance(error, TimedOut) and error.kind == "total"):
        return
    if error is not None or result.status in _UNAVAILABLE_STATUS:
        queue.failed(label, result.began_ns, retry_after_ns(result.headers, wall_ns) or 0)
    else:
        queue.recovered(label, result.began_ns)
