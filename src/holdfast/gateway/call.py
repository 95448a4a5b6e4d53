"""One guarded call: claim its conversation, reserve, attempt, retry or fall back, settle, record, answer.

Callback style, no task per call. Money is reserved for each attempt before it is made and settled when it ends. What happened is
written to the journal before the answer's last byte goes out.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress

from holdfast.clock import SECOND, Timer
from holdfast.errors import ConnectFailed, ConnectionCut, MalformedRequest, StorageError, Withdrawn
from holdfast.events.error import RecoveryAction
from holdfast.execution.attempt import Attempt, AttemptResult
from holdfast.execution.limiter import Reservation
from holdfast.execution.turn import Turn
from holdfast.execution.upstream import Headers
from holdfast.gateway import refusals
from holdfast.gateway.admission import Bounds, Cost, output_to_send, settlement
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.gate import Admitted, Denied, Entry, killed, killed_tool
from holdfast.gateway.headers import own_headers
from holdfast.gateway.identity import Caller
from holdfast.gateway.incoming import answer_of, without_secret
from holdfast.gateway.options import Passthrough, Reply, ToolOptions
from holdfast.gateway.origin import history_of, origin_of
from holdfast.gateway.outgoing import attempt_options, upstream_request
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import CallRecord, Subject
from holdfast.gateway.recovery import ONCE, Recovery, may_fall_back
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request, Response
from holdfast.policy.history import Claim
from holdfast.policy.kill import NONE, Kill
from holdfast.wire.call import Answer, Call, Refusal, Rewrite, StreamReader
from holdfast.wire.canonical import turn
from holdfast.wire.quota import retry_after_ns

_NOT_PARSED = Call(model="", generates=False)
_log = logging.getLogger("holdfast.gateway")


class GuardedCall:
    """A call in progress; it ends by itself, with an answer, a refusal or the client's leaving."""

    # At most 30 attributes: Python 3.11 gives an object with more of them a hash table of its own, of 1.4 KB.
    def __init__(self, parts: Parts, caller: Caller, endpoint: Endpoint, request: Request, response: Response) -> None:
        self._parts = parts
        self._caller = caller
        self._endpoint = endpoint
        self._format = endpoint.format
        self._request = request
        self._delivery = Delivery(response, endpoint)
        self._began_ns = parts.clock.monotonic_ns()
        self._total_at_ns = self._began_ns + caller.agent.timeouts.total_ns
        self._call_id = parts.new_id()
        self._call = _NOT_PARSED
        self._claim: Claim | None = None
        self._destinations: tuple[Destination | Reply, ...] = ()
        self._at = 0
        self._recovery = Recovery(caller.agent.retries)
        self._price: int | None = None
        self._bounds: Bounds | None = None
        self._reservation: Reservation | None = None
        self._turn: Turn | None = None
        self._rewrite = Rewrite()
        self._attempt: Attempt | None = None
        self._waiting: Timer | None = None
        self._sent = 0
        self._served_by = ""
        self._last_failure: AttemptResult | None = None
        self._checked = NONE
        self._killed_tools: Mapping[str, Kill] = {}
        self._over = False
        response.disconnected = self._client_left
        response.pausing = self._pause
        response.resuming = self._resume

    def start(self) -> None:
        """Read the request, find its conversation and its targets, and begin."""
        routing, family = self._parts.routing, self._endpoint.family
        if self._format is None:
            self._begin(routing.unread(family))
            return
        try:
            self._call = self._format.parse(self._request.body)
        except MalformedRequest as error:
            self._identify()
            self._refuse(refusals.malformed(error, self._request.header(b"content-encoding")))
            return
        self._begin(routing.destinations(self._caller.agent, self._call.model, family))

    def start_passthrough(self, destination: Destination, allowed: Passthrough) -> None:
        """Relay the request unread to one provider, at the configured price."""
        self._price = allowed.price
        self._begin((destination,))

    def start_tool(self, destination: Destination, tool: ToolOptions) -> None:
        """Relay the request unread to a tool, once: nobody here knows whether it may be done twice."""
        self._price, self._recovery = tool.price, Recovery(ONCE)
        if tool.timeout_ns is not None:
            self._total_at_ns = min(self._total_at_ns, self._began_ns + tool.timeout_ns)
        self._begin((destination,))

    def _begin(self, destinations: tuple[Destination | Reply, ...]) -> None:
        self._identify()
        self._destinations = destinations
        if not self._flush():  # writes what an earlier call could not: without a record no money is spent
            return
        if self._claim is not None and self._claim.continues is None:
            self._record.interaction_started()
        if destinations:
            self._admit()
        else:
            self._refuse(refusals.no_destination(self._call.model))

    def _identify(self) -> None:
        parts, caller, call = self._parts, self._caller, self._call
        began_wall_ns = parts.clock.wall_ns() - (parts.clock.monotonic_ns() - self._began_ns)
        origin, self._claim = origin_of(parts, caller, call, self._call_id)
        subject = Subject(
            call_id=self._call_id,
            target_api=self._endpoint.api,
            format_name="" if self._format is None else self._format.name,
            call=call,
            began_ns=self._began_ns,
            began_wall_ns=began_wall_ns,
        )
        self._entry = Entry(
            call=call,
            agent=caller.agent,
            origin=origin,
            endpoint=self._endpoint,
            price=self._price,
            history=history_of(parts, caller, call),
            began_wall_ns=began_wall_ns,
            total_at_ns=self._total_at_ns,
        )
        self._record = CallRecord(parts.recorder, parts.clock, origin, subject)
        parts.in_progress.add(self)

    def _admit(self) -> None:
        """Ask for one attempt at the current target to be let through; `_admitted` goes on."""
        self._waiting = None
        destination = self._destinations[self._at]
        self._checked = kills = self._parts.gate.kills()
        if kills.active and (denied := killed(kills, self._entry, destination)) is not None:
            self._denied(denied)
        elif isinstance(destination, Reply):
            self._reply(destination)
        elif destination.provider.key_error:
            self._without_attempt(refusals.no_key(destination.owner, destination.provider.key_error))
        else:
            self._parts.gate.admit(self._entry, destination, self._admitted, last=self._at + 1 == len(self._destinations))

    def _admitted(self, outcome: Admitted | Denied) -> None:
        try:
            self._go_on(outcome)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.attempt_broke(defect)

    def _go_on(self, outcome: Admitted | Denied) -> None:
        if self._over:
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
            self._turn = outcome.turn
            self._reservation = outcome.reservation
            self._bounds = outcome.bounds
            self._send(outcome.reservation)

    def _send(self, reservation: Reservation) -> None:
        destination, found, request, timeouts = self._target, self._bounds, self._request, self._caller.agent.timeouts
        assert found is not None
        provider, body = destination.provider, request.body
        if self._format is not None:
            self._rewrite = rewrite = Rewrite(
                model=destination.model if destination.model != self._call.model else None,
                max_output=output_to_send(found, self._call, reservation.usd, reservation.tokens),
                modern=provider.kind.modern,
                usage_in_stream=self._call.stream,
            )
            if not rewrite.leaves(self._call):
                body = self._format.rewrite(body, self._call, rewrite)
        self._sent = len(body)
        self._served_by = destination.label
        outgoing = upstream_request(request, destination, body, timeouts, self._withdrawn)
        options = attempt_options(timeouts, self._total_at_ns, stream=self._call.stream)
        read_stream = None if self._format is None else self._stream_reader
        self._killed_tools = self._parts.gate.kills().tools
        self._attempt = attempt = Attempt(self._parts.upstream, outgoing, options, self._parts.clock, self, read_stream)
        attempt.start()

    @property
    def _target(self) -> Destination:
        """The one that an attempt is made at."""
        destination = self._destinations[self._at]
        assert isinstance(destination, Destination)
        return destination

    def _killed_now(self) -> Denied | None:
        return killed(self._parts.gate.kills(), self._entry, self._destinations[self._at])

    def _withdrawn(self) -> bool:
        return self._killed_now() is not None

    def _stream_reader(self) -> StreamReader:
        assert self._format is not None
        return self._format.stream(self._call, self._rewrite)

    def _own_headers(self, attempts: int, cost: Cost | None = None) -> list[tuple[bytes, bytes]]:
        decision = "" if self._format is None else self._call_id
        amount = None if cost is None else cost.amount
        return own_headers(self._served_by, attempts, decision, self._entry.origin.interaction, self._rewrite.max_output, amount)

    def attempt_committed(self, status: int, headers: Headers, data: bytes) -> None:
        self._parts.gate.heard(self._entry, self._target, self._turn, status, headers)
        self._delivery.own = self._own_headers(attempts=self._record.attempts + 1)
        if not self._killed_tools or not self._stopped_by_tool():
            self._delivery.start(status, headers, data)

    def attempt_data(self, data: bytes) -> None:
        if not self._killed_tools or not self._stopped_by_tool():
            self._delivery.write(data)

    def attempt_ended(self, result: AttemptResult) -> None:
        self._attempt = None
        if result.status >= 400:
            result.body = without_secret(result.body, self._target)
        answer = answer_of(result, self._format)
        cost = self._settle(result, answer)
        if isinstance(result.error, Withdrawn):
            self._admit()
        elif (kill := killed_tool(self._killed_tools, result, answer)) is not None:
            self._record.attempt(result, cost, self._served_by, self._sent, failed=True)
            self._stopped(answer, cost, result, refusals.tool_killed(kill))
        elif answer is not None and answer.complete and result.error is None:
            self._succeed(result, answer, cost)
        else:
            self._fail(result, answer, cost)

    def attempt_broke(self, defect: Exception) -> None:
        """A defect of our own: the agent gets an answer all the same, and what was reserved counts as spent."""
        _log.error("call %s broke", self._call_id, exc_info=defect)
        self._end()
        if self._attempt is not None:
            self._attempt.cancel()
            self._attempt = None
        if self._reservation is not None:
            self._reservation.settle(self._reservation.usd, self._reservation.tokens)  # does nothing where it was settled already
            self._reservation = None
        self._return_claim()
        with suppress(Exception):  # the record may be what broke
            self._record.defect(defect)
            self._record.flush()
        self._delivery.refusal(refusals.defect())

    def _settle(self, result: AttemptResult, answer: Answer | None) -> Cost:
        reservation, found = self._reservation, self._bounds
        assert reservation is not None
        assert found is not None
        if isinstance(result.error, ConnectFailed | Withdrawn):
            reservation.cancel()
            cost = Cost(0, 0, "free", None)
        else:
            cost = settlement(result, answer, found, reservation.usd, reservation.tokens)
            reservation.settle(cost.charged, cost.tokens)
        self._parts.gate.ended(self._entry, self._target, self._turn, result, cost)
        return cost

    def _succeed(self, result: AttemptResult, answer: Answer, cost: Cost) -> None:
        self._record.attempt(result, cost, self._served_by, self._sent, failed=False)
        if self._format is not None:
            self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)
            if self._format.resumable and answer.response_id and self._entry.origin.interaction:
                tokens = 0 if answer.usage is None else answer.usage.input + answer.usage.output
                self._parts.conversations.remember_response(self._caller.name, answer.response_id, self._entry.origin.interaction, tokens)
        if self._claim is not None:
            self._parts.conversations.answered(self._claim, answer.turns, self._call_id)
            self._claim = None
        if not self._flush():
            return
        self._end()
        if result.committed:
            self._delivery.end(result.held)
            return
        self._delivery.own = self._own_headers(self._record.attempts, cost)
        if result.stream is None:
            self._delivery.whole(result.status, result.headers, result.body)
        else:
            self._delivery.start(result.status, result.headers, result.held)
            self._delivery.end()

    def _fail(self, result: AttemptResult, answer: Answer | None, cost: Cost) -> None:
        """Retry here, fall back to the next target, or pass the failure on; what was done stands on the error."""
        clock, last = self._parts.clock, self._at + 1 == len(self._destinations)
        left_ns, asked_ns = self._total_at_ns - clock.monotonic_ns(), retry_after_ns(result.headers, clock.wall_ns())
        wait_ns = None if result.committed else self._recovery.retry_in_ns(result, left_ns, asked_ns, self._parts.uniform(), last=last)
        fall_back = wait_ns is None and not (result.committed or last) and left_ns > 0 and may_fall_back(result)
        recovery: RecoveryAction = "retried" if wait_ns is not None else "fell_back" if fall_back else "none"
        self._record.attempt(result, cost, self._served_by, self._sent, failed=True)
        self._record.failure(result, self._served_by, recovery)
        self._last_failure = result
        if wait_ns is not None:
            self._waiting = self._parts.clock.call_later(wait_ns, self._try_again)
        elif fall_back:
            self._next_destination()
        else:
            if result.committed and answer is not None and self._format is not None:
                self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)
            self._give_up(result)

    def _try_again(self) -> None:
        try:
            self._admit()
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.attempt_broke(defect)

    def _next_destination(self) -> None:
        self._at += 1
        self._recovery.moved()
        self._admit()

    def _without_attempt(self, refusal: Refusal) -> None:
        """The current target cannot even be tried: the next one, else the failure that led here, else this refusal."""
        if self._at + 1 < len(self._destinations):
            self._next_destination()
        elif self._last_failure is not None:
            self._give_up(self._last_failure)
        else:
            self._refuse(refusal)

    def _denied(self, denied: Denied) -> None:
        if denied.elsewhere:
            self._without_attempt(denied.refusal)
            return
        if denied.reached is not None:
            self._record.limit_refusal(denied.reached)
        if self._last_failure is not None and denied.kill is None:
            self._give_up(self._last_failure)
        else:
            self._refuse(denied.refusal)
        if denied.reached is not None:
            self._parts.limit_refused(denied.reached)

    def _give_up(self, result: AttemptResult) -> None:
        if self._flush():
            self._end()
            self._return_claim()
            if not self._delivery.started:
                self._delivery.own = self._own_headers(self._record.attempts)
            self._delivery.failure(result, self._served_by, retried=self._recovery.spent)

    def _reply(self, reply: Reply) -> None:
        """The route's last resort: an answer of the gateway's own."""
        created_s = self._parts.clock.wall_ns() // SECOND
        body = None if self._format is None else self._format.canned(self._call, reply.text, self._call_id, created_s)
        if body is None:
            self._without_attempt(refusals.no_destination(self._call.model))
            return
        self._served_by, self._rewrite = "reply", Rewrite()
        self._record.decision(Answer(text=reply.text, finish_reason="canned"), Cost(0, 0, "free", None), "reply", self._claim, None)
        if self._claim is not None:
            self._parts.conversations.answered(self._claim, [turn("assistant", [reply.text])], self._call_id)
            self._claim = None
        if self._flush():
            self._end()
            self._delivery.own = self._own_headers(self._record.attempts)
            self._delivery.canned(body, stream=self._call.stream)

    def _refuse(self, refusal: Refusal) -> None:
        """Deny the call; nothing was spent on it."""
        self._record.refusal(refusal)
        if self._flush():
            self._end()
            self._return_claim()
            self._delivery.refusal(refusal)

    def _flush(self) -> bool:
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

    def _client_left(self) -> None:
        """Stop the upstream at once, settle what may have been generated, record how far it came."""
        if self._over:
            return
        self._end()
        if self._waiting is not None:
            self._waiting.cancel()
        if self._attempt is None:
            self._parts.gate.leave(self._entry)
            self._record.cancelled(self._served_by or "before any attempt")
        else:
            try:
                result, answer, cost = self._cancel(self._attempt, "the client left")
                self._record.cancelled(self._served_by)
                if answer is not None and result.committed and self._format is not None:
                    self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)
            except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
                self.attempt_broke(defect)
        self._return_claim()
        with suppress(StorageError):  # nobody is left to be told; the next call is
            self._record.flush()

    def _cancel(self, attempt: Attempt, why: str) -> tuple[AttemptResult, Answer | None, Cost]:
        """Drop the attempt, settle what may have been generated, record how far it came; its error is the caller's to record."""
        result = attempt.cancel()
        self._attempt = None
        result.error = ConnectionCut(why)
        answer = answer_of(result, self._format)
        cost = self._settle(result, answer)
        self._record.attempt(result, cost, self._served_by, self._sent, failed=True)
        return result, answer, cost

    def kills_changed(self) -> None:
        """Carry out what the kill switch says now: refuse what waits, cut off what is to be cut; see `Parts.in_progress`."""
        try:
            self._obey(self._killed_now() if self._destinations else None)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.attempt_broke(defect)

    def _obey(self, denied: Denied | None) -> None:
        attempt = self._attempt
        if attempt is None:
            if denied is not None and not denied.elsewhere:  # else it is asked again when its turn comes
                if self._waiting is not None:
                    self._waiting.cancel()
                self._parts.gate.leave(self._entry)
                self._denied(denied)
            return
        if denied is not None and denied.kill is not None and denied.kill.mode == "cut":
            self._cut(attempt, denied.refusal)
            return
        stream = attempt.result.stream
        named = () if stream is None else stream.tools  # what may end when it drains
        self._killed_tools = {
            name: kill for name, kill in self._parts.gate.kills().tools.items() if kill.mode == "cut" or name not in named
        }
        self._stopped_by_tool()

    def _cut(self, attempt: Attempt, refusal: Refusal) -> None:
        result, answer, cost = self._cancel(attempt, "stopped with the kill switch")
        self._stopped(answer if result.committed else None, cost, result, refusal)

    def _stopped_by_tool(self) -> bool:
        """Cut a stream off that calls a killed tool, before the event that names it is passed on."""
        attempt = self._attempt
        if attempt is None or (kill := killed_tool(self._killed_tools, attempt.result, None)) is None:
            return False
        self._cut(attempt, refusals.tool_killed(kill))
        return True

    def _stopped(self, answer: Answer | None, cost: Cost, result: AttemptResult, refusal: Refusal) -> None:
        """The kill switch ends a call that has cost something: its attempt is recorded, its answer is not delivered to the end."""
        self._record.stopped(refusal)
        if answer is not None and self._format is not None:
            answer.complete = False
            self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)
        if self._flush():
            self._end()
            self._return_claim()
            if not self._delivery.started:
                self._delivery.own = self._own_headers(self._record.attempts, cost)
            self._delivery.refusal(refusal)

    def _end(self) -> None:
        self._over = True
        self._parts.in_progress.discard(self)

    def _return_claim(self) -> None:
        if self._claim is not None:
            self._parts.conversations.failed(self._claim)
            self._claim = None

    def _pause(self) -> None:
        if self._attempt is not None:
            self._attempt.pause()

    def _resume(self) -> None:
        if self._attempt is not None:
            self._attempt.resume()
