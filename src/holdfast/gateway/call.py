"""One guarded call: claim its conversation, reserve, attempt, retry or fall back, settle, record, answer.

Callback style, no task per call. Money is reserved for each attempt before it is made and settled when it ends. What happened is
written to the journal before the answer's last byte goes out.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import structs

from holdfast.clock import Timer
from holdfast.errors import MalformedRequest, Withdrawn
from holdfast.events.error import RecoveryAction
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.upstream import Headers
from holdfast.gateway import loops, refusals
from holdfast.gateway.admission import Cost
from holdfast.gateway.arrival import Arrival, Times, arrive
from holdfast.gateway.asked import Asked, asked_of
from holdfast.gateway.continuation import Continuation, continuation_of
from holdfast.gateway.ending import Ending
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.gate import Admitted, Denied, killed, killed_in_stream, killed_tool
from holdfast.gateway.headers import retries_by_sdk
from holdfast.gateway.hedging import Hedge
from holdfast.gateway.identity import Caller
from holdfast.gateway.options import Passthrough, Reply
from holdfast.gateway.parts import Parts
from holdfast.gateway.queueing import Queueing
from holdfast.gateway.recovery import Recovery, is_declined, may_fall_back
from holdfast.gateway.routing import Destination
from holdfast.gateway.target_attempt import TargetAttempt
from holdfast.http.message import Request, Response
from holdfast.policy.kill import NONE, Kill
from holdfast.wire.call import Answer, Call, Refusal
from holdfast.wire.translation import Untranslatable

_NOT_PARSED = Call(model="", generates=False)


class _Failure(NamedTuple):
    """An attempt that did not serve the call. answer: as far as it came; a whole one was declined for another target's."""

    result: AttemptResult
    answer: Answer | None
    cost: Cost


class GuardedCall:
    """A call in progress; it ends by itself, with an answer, a refusal or the client's leaving."""

    # At most 30 attributes: Python 3.11 gives an object with more of them a hash table of its own, of 1.4 KB.
    def __init__(self, parts: Parts, caller: Caller, endpoint: Endpoint, request: Request, response: Response) -> None:
        self._parts = parts
        self._caller = caller
        self._endpoint = endpoint
        self._format = endpoint.format
        self._request = request
        self._body = request.body
        self._continuation: Continuation | None = None
        began_ns = parts.clock.monotonic_ns()
        self._times = Times(began_ns, began_ns + caller.agent.timeouts.total_ns)
        self._call_id = parts.new_id()
        self._ending = Ending(parts, endpoint, response, self._call_id, self._closed)
        self._call = _NOT_PARSED
        self._destinations: tuple[Destination | Reply, ...] = ()
        self._at = 0
        self._recovery = Recovery(caller.agent.retries, retries_by_sdk(request.headers))
        self._asked: Asked | None = None
        self._attempt: TargetAttempt | None = None
        self._hedge: Hedge | None = None
        self._queueing: Queueing | None = None
        self._waiting: Timer | None = None
        self._last_failure: _Failure | None = None
        self._checked = NONE
        self._killed_tools: Mapping[str, Kill] = {}
        response.disconnected = self._client_left
        response.pausing = self._pause
        response.resuming = self._resume

    def start(self) -> None:
        """Read the request, find its conversation and its targets, and begin."""
        routing = self._parts.routing
        if self._format is None:
            self._begin(routing.unread(self._endpoint.family))
            return
        try:
            self._call = self._format.parse(self._request.body)
        except MalformedRequest as error:
            self._identify()
            self._ending.refused(refusals.malformed(error, self._request.header(b"content-encoding")))
            return
        self._begin(routing.destinations(self._caller.agent, self._call.model, self._format))

    def start_passthrough(self, destination: Destination, allowed: Passthrough) -> None:
        """Relay the request unread to one provider, at the configured price."""
        self._begin((destination,), allowed.price)

    def _begin(self, destinations: tuple[Destination | Reply, ...], price: int | None = None) -> None:
        arrival = self._identify(price)
        self._destinations = destinations
        if not self._ending.flush():  # writes what an earlier call could not: without a record no money is spent
            return
        if arrival.claim is not None and arrival.claim.continues is None:
            self._record.interaction_started()
        if not destinations:
            self._ending.refused(refusals.no_destination(self._call.model))
        elif (stop := loops.checked(self._parts, arrival)) is not None:
            self._ending.refused(stop)
        elif self._parts.queue.awaited and self._is_held_back():
            self._wait()
        else:
            self._admit()

    def _identify(self, price: int | None = None) -> Arrival:
        arrival = arrive(self._parts, self._caller, self._endpoint, self._call, self._call_id, self._times, price)
        self._entry, self._record = arrival.entry, arrival.record
        self._ending.arrived(arrival)
        self._record.repeated = self._recovery.made
        self._parts.in_progress.add(self)
        return arrival

    def _admit(self) -> None:
        """Ask for one attempt at the current target to be let through; `_admitted` goes on."""
        self._waiting = None
        destination = self._destinations[self._at]
        self._checked = kills = self._parts.gate.kills()
        if kills.active and (denied := killed(kills, self._entry, destination)) is not None:
            self._denied(denied)
        elif isinstance(destination, Reply):
            if not self._ending.canned(destination):
                self._pass_over(refusals.no_destination(self._call.model))
        elif destination.provider.key_error:
            self._pass_over(refusals.no_key(destination.owner, destination.provider.key_error))
        else:
            self._ask(destination)

    def _ask(self, destination: Destination) -> None:
        asked = self._asked
        if asked is None or asked.destination is not destination:
            try:
                self._asked = asked = asked_of(self._entry, self._body, destination, last=self._next is None)
            except Untranslatable as error:
                self._pass_over(refusals.untranslatable(error, destination.label))
                return
            except MalformedRequest as error:  # of what the caller's own format lets pass
                self._pass_over(refusals.malformed(error, None))
                return
        self._parts.gate.admit(asked.entry, destination, self._admitted, last=self._next is None)

    @property
    def _next(self) -> Destination | Reply | None:
        """The target after the current one. A reply is an answer of its own: it cannot go on with one that has begun."""
        following = self._destinations[self._at + 1] if self._at + 1 < len(self._destinations) else None
        return None if isinstance(following, Reply) and self._ending.started else following

    def _admitted(self, outcome: Admitted | Denied) -> None:
        try:
            self._go_on(outcome)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.broke(defect)

    def _go_on(self, outcome: Admitted | Denied) -> None:
        if self._ending.over:
            if isinstance(outcome, Admitted):
                outcome.cancel()
        elif isinstance(outcome, Denied):
            self._denied(outcome)
        elif self._parts.gate.kills() is not self._checked and (denied := self._killed_now()) is not None:  # since it began to wait
            outcome.cancel()
            self._denied(denied)
        else:
            if outcome.unchecked:
                self._record.unchecked(outcome.unchecked)
            self._record.queued(outcome.turn)
            self._send(outcome)

    def _send(self, admitted: Admitted) -> None:
        asked, agent, parts = self._asked, self._caller.agent, self._parts
        assert asked is not None
        provider = asked.destination.provider
        self._recovery.begins(parts.allowances.of(agent.name, provider.name, agent.retries.share))
        self._killed_tools = parts.gate.kills().tools
        self._ending.served_by = asked.destination.label
        self._attempt = attempt = TargetAttempt(parts, asked, admitted, self, self._record.attempts + 1)
        attempt.start(self._request, f"{self._call_id}-{self._at}")
        if agent.hedge_after_ns is not None and self._attempt is attempt:  # else it has ended already
            self._hedge = Hedge(parts, attempt, self._send_beside)

    def _send_beside(self, asked: Asked, admitted: Admitted) -> TargetAttempt:
        """A second attempt, which is not to be taken for a repetition of the first."""
        attempt = TargetAttempt(self._parts, asked, admitted, self, self._record.attempts + 2)
        attempt.start(self._request, f"{self._call_id}-{self._at}-hedge")
        return attempt

    def _killed_now(self) -> Denied | None:
        return killed(self._parts.gate.kills(), self._entry, self._destinations[self._at])

    def committed(self, attempt: TargetAttempt, status: int, headers: Headers, data: bytes) -> None:
        self._ending.clamped = attempt.rewrite.max_output
        if self._hedge is not None:
            self._won(attempt)
        if self._killed_tools and self._stopped_by_tool():
            return
        if self._continuation is not None:
            self._ending.write(self._continuation.passed(data))
            return
        if self._caller.agent.fallback.continue_streams:
            self._continuation = continuation_of(self._format, self._call, self._body, data)
        self._ending.begun(status, headers, data)

    def data(self, attempt: TargetAttempt, data: bytes) -> None:
        if not self._killed_tools or not self._stopped_by_tool():
            self._ending.write(data if self._continuation is None else self._continuation.passed(data))

    def _won(self, attempt: TargetAttempt) -> None:
        """The attempt serves the call; the one beside it, if any, is given up."""
        hedge, self._hedge = self._hedge, None
        self._attempt = attempt
        loser = None if hedge is None else hedge.close(attempt)
        if loser is not None:
            result, _, cost = loser.cancel("another attempt answered first")
            self._record.attempt(result, cost, self._ending.served_by, loser.sent, loser.number, failed=True)
            self._record.outrun(self._ending.served_by)

    def ended(self, attempt: TargetAttempt, result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        self._ending.clamped = attempt.rewrite.max_output
        if self._continuation is not None:
            answer = self._continuation.ended(result, answer)
        answered = answer is not None and answer.complete and result.error is None
        if self._hedge is not None and not answered:
            hedge, self._hedge = self._hedge, None
            other = hedge.close(attempt)
            if other is not None:
                self._attempt = other
                self._outlived(attempt, result, cost)
                return
        elif self._hedge is not None:
            self._won(attempt)
        self._attempt = None
        if isinstance(result.error, Withdrawn):
            self._admit()
        elif (kill := killed_tool(self._killed_tools, result, answer)) is not None:
            self._record.attempt(result, cost, self._ending.served_by, attempt.sent, attempt.number, failed=True)
            self._ending.stopped(answer, cost, result, refusals.tool_killed(kill))
        elif answer is None or not answered or (self._next is not None and self._declined(result, answer)):
            self._record.attempt(result, cost, self._ending.served_by, attempt.sent, attempt.number, failed=True)
            self._fail(result, answer, cost)
        else:
            self._record.attempt(result, cost, self._ending.served_by, attempt.sent, attempt.number, failed=False)
            self._ending.answered(result, answer, cost)

    def _outlived(self, attempt: TargetAttempt, result: AttemptResult, cost: Cost) -> None:
        """It has failed, and the call goes on with the one beside it."""
        if not isinstance(result.error, Withdrawn):  # else it was never sent
            self._record.attempt(result, cost, self._ending.served_by, attempt.sent, attempt.number, failed=True)
            self._record.failure(result, self._ending.served_by, "hedged")

    def _declined(self, result: AttemptResult, answer: Answer) -> bool:
        return is_declined(result, answer, self._caller.agent.fallback)

    def broke(self, defect: Exception) -> None:
        """A defect of our own: the agent gets an answer all the same, and what was reserved counts as spent."""
        attempt, self._attempt = self._attempt, None
        hedge, self._hedge = self._hedge, None
        if attempt is not None:
            beside = None if hedge is None else hedge.close(attempt)
            for each in (attempt, beside):
                if each is not None:
                    each.forfeit()
        self._ending.broke(defect)

    def _fail(self, result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        """Retry here, fall back to the next target, or pass the failure on; what was done stands on the error."""
        parts, following, options = self._parts, self._next, self._caller.agent.fallback
        left_ns = self._times.total_at_ns - parts.clock.monotonic_ns()
        wait_ns: int | None = None
        recovery: RecoveryAction = "none"
        if result.committed:
            if left_ns > 0 and isinstance(following, Destination) and self._go_on_with(result):
                recovery = "continued"
                self._ending.interrupted(result, answer, cost)
        else:
            wait_ns = self._recovery.retry_in_ns(result, left_ns, parts.clock, parts.uniform(), last=following is None)
            if wait_ns is not None:
                recovery = "retried"
            elif left_ns > 0 and may_fall_back(result, answer, options):
                recovery = self._way_on(result, answer)
        self._record.failure(result, self._ending.served_by, recovery)
        self._last_failure = _Failure(result, answer, cost)
        if wait_ns is not None:
            self._waiting = parts.clock.call_later(wait_ns, self._try_again)
        elif recovery == "queued":
            self._wait()
        elif recovery != "none":
            self._next_destination()
        else:
            self._ending.cut_short(result, answer, cost)
            self._give_up(self._last_failure)

    def _way_on(self, result: AttemptResult, answer: Answer | None) -> RecoveryAction:
        """What is done where the current target is not tried again."""
        following, queueing = self._next, self._may_queue()
        if queueing is not None and self._asked is not None:
            queueing.failed(result, answer, self._asked.destination)
        if following is not None:
            return "canned" if isinstance(following, Reply) else "fell_back"
        return "queued" if queueing is not None and queueing.may_wait else "none"

    def _may_queue(self) -> Queueing | None:
        """The call's way through the admission queue, where its agent wants that and nothing has gone out yet."""
        if not self._caller.agent.queue.waits or self._ending.started:
            return None
        if self._queueing is None:
            self._queueing = Queueing(self._parts, self._entry, self._record, self._request, self)
        return self._queueing

    def _is_held_back(self) -> bool:
        """Whether others wait for every target already."""
        queueing = self._may_queue()
        return queueing is not None and self._killed_now() is None and queueing.is_held_back(self._destinations)

    def _wait(self) -> None:
        """For the first target that may be worth trying again; the call holds nothing meanwhile."""
        queueing, self._asked, self._last_failure, self._at = self._queueing, None, None, 0
        assert queueing is not None
        if self._ending.flush():  # the record of an outage is not to wait for its end
            queueing.wait()

    def again(self) -> None:
        """The wait is over."""
        self._recovery.renew()
        self._admit()

    def unserved(self, refusal: Refusal) -> None:
        """It was in vain."""
        self._ending.refused(refusal)

    def _go_on_with(self, result: AttemptResult) -> bool:
        """Whether the stream that broke off can be continued; the next target is then asked for the rest of it."""
        continuation = self._continuation
        if continuation is None or self._format is None or not continuation.possible:
            return False
        self._body = continuation.request()
        self._entry = structs.replace(self._entry, call=self._format.parse(self._body))
        return True

    def _try_again(self) -> None:
        try:
            self._admit()
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.broke(defect)

    def _next_destination(self) -> None:
        self._at += 1
        self._recovery.moved()
        self._admit()

    def _pass_over(self, refusal: Refusal) -> None:
        """The current target cannot even be tried: the next one, else the failure that led here, else a refusal."""
        following, queueing = self._next, self._may_queue()
        if queueing is not None:
            queueing.passed_over(refusal, self._destinations[self._at])
        if following is not None:
            self._record.passed_over(refusal, canned=isinstance(following, Reply))
            self._next_destination()
        elif queueing is not None and queueing.may_wait:
            self._wait()
        elif self._last_failure is not None:
            self._record.refusal(refusal)
            self._give_up(self._last_failure)
        else:
            reached = self._ending.reached
            self._ending.refused(refusal if reached is None else refusals.limit_reached(reached))

    def _denied(self, denied: Denied) -> None:
        if denied.reached is not None and self._ending.reached is None:
            self._record.limit_refusal(denied.reached)
            self._ending.reached = denied.reached
        if denied.elsewhere:
            self._pass_over(denied.refusal)
        elif self._last_failure is not None and denied.kill is None:
            self._record.refusal(denied.refusal)
            self._give_up(self._last_failure)
        else:
            self._ending.refused(denied.refusal)

    def _give_up(self, failure: "_Failure") -> None:
        result, answer, cost = failure
        if answer is not None and answer.complete and result.error is None:  # declined: another target was to answer instead
            self._ending.answered(result, answer, cost)
        else:
            self._ending.failed(result, retried=self._recovery.spent)

    def _client_left(self) -> None:
        """Stop the upstream at once, settle what may have been generated, record how far it came."""
        if not self._ending.over:
            try:
                self._ending.left(self._withdraw)
            except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
                self.broke(defect)

    def _withdraw(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        attempt = self._attempt
        if attempt is None:
            self._leave()
            self._record.cancelled(self._ending.served_by or "before any attempt")
            return
        result, answer, cost = self._cancel(attempt, "the client left")
        self._record.cancelled(self._ending.served_by)
        self._ending.cut_short(result, answer, cost)

    def _closed(self) -> None:
        self._parts.in_progress.discard(self)
        queueing, self._queueing = self._queueing, None
        if queueing is not None:
            queueing.leave()

    def _leave(self) -> None:
        if self._asked is not None:
            self._parts.gate.leave(self._asked.entry)

    def _cancel(self, attempt: TargetAttempt, why: str) -> tuple[AttemptResult, Answer | None, Cost]:
        """Drop the attempt, and one beside it; record how far it came. Its error is the caller's to record."""
        if self._hedge is not None:
            self._won(attempt)
        result, answer, cost = attempt.cancel(why)
        self._attempt = None
        self._record.attempt(result, cost, self._ending.served_by, attempt.sent, attempt.number, failed=True)
        return result, answer, cost

    def kills_changed(self) -> None:
        """Carry out what the kill switch says now: refuse what waits, cut off what is to be cut; see `Parts.in_progress`."""
        try:
            self._obey(self._killed_now() if self._destinations else None)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.broke(defect)

    def _obey(self, denied: Denied | None) -> None:
        attempt = self._attempt
        if attempt is None:
            if denied is not None and not denied.elsewhere:  # else it is asked again when its turn comes
                if self._waiting is not None:
                    self._waiting.cancel()
                self._leave()
                self._denied(denied)
            return
        if denied is not None and denied.kill is not None and denied.kill.mode == "cut":
            self._cut(attempt, denied.refusal)
            return
        stream = attempt.stream
        named = () if stream is None else stream.tools  # what may end when it drains
        self._killed_tools = {
            name: kill for name, kill in self._parts.gate.kills().tools.items() if kill.mode == "cut" or name not in named
        }
        self._stopped_by_tool()

    def _cut(self, attempt: TargetAttempt, refusal: Refusal) -> None:
        result, answer, cost = self._cancel(attempt, "stopped with the kill switch")
        self._ending.stopped(answer if result.committed else None, cost, result, refusal)

    def _stopped_by_tool(self) -> bool:
        """Cut a stream off that calls a killed tool, before the event that names it is passed on."""
        attempt = self._attempt
        if attempt is None or (kill := killed_in_stream(self._killed_tools, attempt.stream)) is None:
            return False
        self._cut(attempt, refusals.tool_killed(kill))
        return True

    def _pause(self) -> None:
        if self._attempt is not None:
            self._attempt.pause()

    def _resume(self) -> None:
        if self._attempt is not None:
            self._attempt.resume()
