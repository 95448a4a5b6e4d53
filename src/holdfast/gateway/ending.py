"""How a call ends: what it came to is written down, its conversation is settled, and then the last of it goes out to the agent."""

import logging
from collections.abc import Callable
from contextlib import suppress

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway import loops, refusals
from holdfast.gateway.admission import Cost
from holdfast.gateway.arrival import Arrival
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.headers import own_headers
from holdfast.gateway.options import Reply
from holdfast.gateway.parts import Parts
from holdfast.http.message import Response
from holdfast.policy.limit import LimitReached
from holdfast.wire.call import Answer, Call, Refusal
from holdfast.wire.canonical import turn

_log = logging.getLogger("holdfast.gateway")


class Ending:
    """Owns the way back to the agent; a call ends once, in whichever of these ways comes first.

    served_by: the target, for people. clamped: the bound of output tokens that was sent in place of the agent's. reached: a limit
    that kept a target from being tried. over: whether the call has ended. closed: told when it does.
    """

    def __init__(self, parts: Parts, endpoint: Endpoint, response: Response, call_id: str, closed: Callable[[], None]) -> None:
        self.served_by = ""
        self.clamped: int | None = None
        self.reached: LimitReached | None = None
        self.over = False
        self.write = response.write  # the way of every streamed piece
        self._delivery = Delivery(response, endpoint)
        self._parts = parts
        self._format = endpoint.format
        self._call_id = call_id
        self._closed: Callable[[], None] | None = closed
        self._unfinished: tuple[Answer, Cost, str, int | None] | None = None
        self._joined: Cost | None = None  # of the streams that this one goes on with

    def arrived(self, arrival: Arrival) -> None:
        """From here on there is somebody to write about."""
        self._record, self._claim = arrival.record, arrival.claim
        self._call: Call = arrival.entry.call
        self._origin = arrival.entry.origin

    def flush(self) -> bool:
        """Hand the record to the operating system; when that fails the call is refused, or its stream broken off."""
        try:
            self._record.flush()
        except StorageError as error:
            self._end()
            self._return_claim()
            refusal = refusals.record_unavailable(str(error))
            if not self._record.attempts:  # held in memory until it can be written
                self._record.refusal(refusal)
            self._delivery.refusal(refusal)
            return False
        return True

    @property
    def started(self) -> bool:
        """Whether a part of an answer has gone out."""
        return self._delivery.started

    def begun(self, status: int, headers: Headers, data: bytes) -> None:
        """The first of a streamed answer; the end is still to come."""
        self._delivery.own = self._own_headers(attempts=self._record.attempts + 1)
        self._delivery.start(status, headers, data)

    def answered(self, result: AttemptResult, answer: Answer, cost: Cost) -> None:
        """With an answer."""
        self._decide(result, answer, cost)
        self._remember(answer)
        if not self.flush():
            return
        self._end()
        if self._delivery.started:
            self._delivery.end(result.held)
            return
        self._delivery.own = self._own_headers(self._record.attempts, cost)
        if result.stream is None:
            self._delivery.whole(result.status, result.headers, result.body)
        else:
            self._delivery.start(result.status, result.headers, result.held)
            self._delivery.end()

    def canned(self, reply: Reply) -> bool:
        """With the route's own reply; False when the format has none."""
        created_s = self._parts.clock.wall_ns() // SECOND
        body = None if self._format is None else self._format.canned(self._call, reply.text, self._call_id, created_s)
        if body is None:
            return False
        self.served_by, self.clamped = "reply", None
        self._record.canned(reply.text, self._claim)
        self._remember(Answer(turns=(turn("assistant", [reply.text]),)))
        if self.flush():
            self._end()
            self._delivery.own = self._own_headers(self._record.attempts)
            self._delivery.canned(body, stream=self._call.stream)
        self._tell_reached()
        return True

    def failed(self, result: AttemptResult, *, retried: bool) -> None:
        """With the failure of its last attempt."""
        self._decide_unfinished()
        if self.flush():
            self._end()
            self._return_claim()
            if not self._delivery.started:
                self._delivery.own = self._own_headers(self._record.attempts)
            self._delivery.failure(result, self.served_by, retried=retried)
        self._tell_reached()

    def refused(self, refusal: Refusal) -> None:
        """With a denial; nothing was spent on it."""
        if refusal.kind == loops.KIND:
            self._record.loop(refusal.message, stopped=True)
        else:
            self._record.refusal(refusal)
        self._decide_unfinished()
        if self.flush():
            self._end()
            self._return_claim()
            self._delivery.refusal(refusal)
        self._tell_reached()

    def stopped(self, answer: Answer | None, cost: Cost, result: AttemptResult, refusal: Refusal) -> None:
        """By the kill switch, after it has cost something: its answer is not delivered to the end."""
        self._record.stopped(refusal)
        if answer is not None:
            answer.complete = False
            self._decide(result, answer, cost)
        self._decide_unfinished()
        if self.flush():
            self._end()
            self._return_claim()
            if not self._delivery.started:
                self._delivery.own = self._own_headers(self._record.attempts, cost)
            self._delivery.refusal(refusal)

    def left(self, write: Callable[[], None]) -> None:
        """Because its client has left; write: puts down how far it came."""
        self._end()
        try:
            write()
            self._decide_unfinished()
        finally:
            self._return_claim()
        with suppress(StorageError):  # nobody is left to be told; the next call is
            self._record.flush()

    def broke(self, defect: Exception) -> None:
        """By a defect of our own: the agent gets an answer all the same."""
        _log.error("call %s broke", self._call_id, exc_info=defect)
        self._end()
        self._return_claim()
        with suppress(Exception):  # the record may be what broke
            self._record.defect(defect)
            self._record.flush()
        self._delivery.refusal(refusals.defect())

    def cut_short(self, result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        """What was already said of an answer that did not end is a decision too."""
        if answer is not None and result.committed:
            self._decide(result, answer, cost)

    def interrupted(self, result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        """A stream broke off and another target is asked for the rest: if none of that comes, what was said stays the decision."""
        if self._joined is not None:
            cost = self._joined.with_more(cost)
        self._joined = cost
        if answer is not None:
            self._unfinished = answer, cost, self.served_by, result.first_token_ns

    def _decide_unfinished(self) -> None:
        if self._unfinished is not None:
            answer, cost, served_by, first_token_ns = self._unfinished
            self._unfinished = None
            self._record.decision(answer, cost, served_by, self._claim, first_token_ns)

    def _decide(self, result: AttemptResult, answer: Answer, cost: Cost) -> None:
        self._unfinished = None  # a part of this one
        if self._joined is not None:
            cost = self._joined.with_more(cost)
        if self._format is not None:
            self._record.decision(answer, cost, self.served_by, self._claim, result.first_token_ns)

    def _remember(self, answer: Answer) -> None:
        """The conversation goes on from this answer."""
        conversations, origin = self._parts.conversations, self._origin
        if self._format is not None and self._format.resumable and answer.response_id and origin.interaction:
            tokens = 0 if answer.usage is None else answer.usage.input + answer.usage.output
            conversations.remember_response(origin.agent, answer.response_id, origin.interaction, tokens)
            loops.answered(self._parts, origin, answer)
        if self._claim is not None:
            conversations.answered(self._claim, answer.turns, self._call_id)
            self._claim = None

    def _return_claim(self) -> None:
        if self._claim is not None:
            self._parts.conversations.failed(self._claim)
            self._claim = None

    def _own_headers(self, attempts: int, cost: Cost | None = None) -> list[tuple[bytes, bytes]]:
        decision = "" if self._format is None else self._call_id
        amount = None if cost is None else cost.amount
        return own_headers(self.served_by, attempts, decision, self._origin.interaction, self.clamped, amount)

    def _tell_reached(self) -> None:
        """No target served the call, and a limit was reached; told after the answer went out, for it may end the agent."""
        if self.reached is not None:
            self._parts.limit_refused(self.reached)

    def _end(self) -> None:
        self.over = True
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
