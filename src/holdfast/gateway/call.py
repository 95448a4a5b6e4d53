"""One guarded call: claim its conversation, reserve, attempt, retry or fall back, settle, record, answer.

Callback style, no task per call. Money is reserved for each attempt before it is made and settled when it ends. What happened is
written to the journal before the answer's last byte goes out.
"""

import logging
from contextlib import suppress

from holdfast.clock import SECOND, Timer
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, MalformedAnswer, MalformedRequest, StorageError, TimedOut
from holdfast.events.error import RecoveryAction
from holdfast.execution.attempt import Attempt, AttemptOptions, AttemptResult
from holdfast.execution.limiter import Reservation
from holdfast.execution.turn import Turn
from holdfast.execution.upstream import Headers, UpstreamRequest
from holdfast.gateway import refusals
from holdfast.gateway.admission import Bounds, Cost, output_to_send, settlement
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.gate import Admitted, Denied, Entry
from holdfast.gateway.headers import upstream_headers
from holdfast.gateway.identity import Caller, user_id
from holdfast.gateway.options import Passthrough, Reply
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import CallRecord, Origin, Subject
from holdfast.gateway.routing import Destination
from holdfast.http.message import Request, Response
from holdfast.money import to_usd
from holdfast.policy.history import Claim
from holdfast.policy.retry import FALLBACK_STATUS, RETRYABLE_STATUS, backoff_ns
from holdfast.wire.call import Answer, Call, Refusal, Rewrite, StreamReader
from holdfast.wire.canonical import turn
from holdfast.wire.quota import retry_after_ns

_UNREAD = Answer()
_NOT_PARSED = Call(model="", generates=False)
_log = logging.getLogger("holdfast.gateway")


class GuardedCall:
    """A call in progress; it ends by itself, with an answer, a refusal or the client's leaving."""

    def __init__(self, parts: Parts, caller: Caller, endpoint: Endpoint, request: Request, response: Response) -> None:
        self._parts = parts
        self._caller = caller
        self._endpoint = endpoint
        self._format = endpoint.format
        self._request = request
        self._delivery = Delivery(response, endpoint)
        self._began_ns = parts.clock.monotonic_ns()
        self._began_wall_ns = parts.clock.wall_ns()
        self._total_at_ns = self._began_ns + caller.agent.timeouts.total_ns
        self._call_id = parts.new_id()
        self._call = _NOT_PARSED
        self._claim: Claim | None = None
        self._destinations: tuple[Destination | Reply, ...] = ()
        self._at = 0
        self._retries_here = 0
        self._retries = 0
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
        run, user = parts.options.run, parts.options.user or caller.user or user_id(call.user)
        interaction, identified_by = caller.interaction, caller.identified_by
        if not interaction and call.conversation:
            remembered = parts.conversations.of_response(caller.name, call.conversation)
            interaction, identified_by = "" if remembered is None else remembered.interaction, "conversation"
        if call.turns:
            scope = f"{caller.name!r}|{run}|{user!r}"  # quoted: no name may look like another name and user
            self._claim = parts.conversations.claim(scope, call.turns, interaction or self._call_id, fixed=bool(interaction))
            identified_by = identified_by if interaction else "history"
            interaction = self._claim.interaction
        if call.conversation and interaction:  # the provider's own id may be all that later requests have in common with this one
            parts.conversations.remember_response(caller.name, call.conversation, interaction)
        origin = Origin(
            agent=caller.name,
            release=caller.release,
            run=run,
            user=user,
            interaction=interaction,
            identified_by=identified_by,
            keep_content=caller.agent.content == "full",
        )
        subject = Subject(
            call_id=self._call_id,
            target_api=self._endpoint.api,
            format_name="" if self._format is None else self._format.name,
            call=call,
            began_ns=self._began_ns,
            began_wall_ns=self._began_wall_ns,
        )
        self._origin = origin
        self._entry = Entry(
            call=call,
            agent=caller.agent,
            origin=origin,
            endpoint=self._endpoint,
            price=self._price,
            history=self._history(call.continues) if call.continues else 0,
            began_wall_ns=self._began_wall_ns,
            total_at_ns=self._total_at_ns,
        )
        self._record = CallRecord(parts.recorder, parts.clock, origin, subject)

    def _history(self, response_id: str) -> int:
        """Tokens of the answer that this call continues; 0 when nobody here saw it, or its usage."""
        remembered = self._parts.conversations.of_response(self._caller.name, response_id)
        return 0 if remembered is None else remembered.tokens

    def _admit(self) -> None:
        """Ask for one attempt at the current target to be let through; `_admitted` goes on."""
        self._waiting = None
        destination = self._destinations[self._at]
        if isinstance(destination, Reply):
            self._reply(destination)
        elif destination.provider.key_error:
            self._without_attempt(refusals.no_key(destination.provider.name, destination.provider.key_error))
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
        path = request.path[3:] if request.path.startswith(b"/v1/") else request.path
        outgoing = UpstreamRequest(
            origin=provider.origin,
            method=request.method,
            target=destination.prefix + path + (b"?" + request.query if request.query else b""),
            headers=upstream_headers(request.headers, destination.credentials),
            body=body,
            connect_timeout_ns=timeouts.connect_ns,
        )
        options = AttemptOptions(
            first_token_ns=timeouts.first_token_ns if self._call.stream else None,
            idle_ns=timeouts.idle_ns,
            total_at_ns=self._total_at_ns,
        )
        read_stream = None if self._format is None else self._stream_reader
        self._attempt = attempt = Attempt(self._parts.upstream, outgoing, options, self._parts.clock, self, read_stream)
        attempt.start()

    @property
    def _target(self) -> Destination:
        """The one that an attempt is made at."""
        destination = self._destinations[self._at]
        assert isinstance(destination, Destination)
        return destination

    def _stream_reader(self) -> StreamReader:
        assert self._format is not None
        return self._format.stream(self._call, self._rewrite)

    def _own_headers(self, attempts: int, cost: Cost | None = None) -> list[tuple[bytes, bytes]]:
        own = [(b"x-holdfast-served-by", _header_value(self._served_by)), (b"x-holdfast-attempts", b"%d" % attempts)]
        if self._format is not None:
            own.append((b"x-holdfast-decision", self._call_id.encode("ascii")))
        if self._origin.interaction:
            own.append((b"x-holdfast-interaction", self._origin.interaction.encode("ascii")))
        if self._rewrite.max_output is not None:
            own.append((b"x-holdfast-clamped-max-tokens", b"%d" % self._rewrite.max_output))
        if cost is not None and cost.amount is not None:
            own.append((b"x-holdfast-cost-usd", to_usd(cost.amount).encode("ascii")))
        return own

    def attempt_committed(self, status: int, headers: Headers, data: bytes) -> None:
        self._parts.gate.heard(self._entry, self._target, self._turn, status, headers)
        self._delivery.own = self._own_headers(attempts=self._record.attempts + 1)
        self._delivery.start(status, headers, data)

    def attempt_data(self, data: bytes) -> None:
        self._delivery.write(data)

    def attempt_ended(self, result: AttemptResult) -> None:
        self._attempt = None
        if result.status >= 400:
            result.body = self._without_secret(result.body)
        answer = self._answer(result)
        cost = self._settle(result, answer)
        if answer is not None and answer.complete and result.error is None:
            self._succeed(result, answer, cost)
        else:
            self._fail(result, answer, cost)

    def _without_secret(self, body: bytes) -> bytes:
        """Some servers repeat the key that they reject; neither the agent nor the record may learn it."""
        key = self._target.provider.key
        return body.replace(key.encode(), b"***") if key else body

    def attempt_broke(self, defect: Exception) -> None:
        """A defect of our own: the agent gets an answer all the same, and what was reserved counts as spent."""
        _log.error("call %s broke", self._call_id, exc_info=defect)
        self._over = True
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

    def _answer(self, result: AttemptResult) -> Answer | None:
        """What was answered, as far as it came; None for error answers and for what is not an answer."""
        if result.stream is not None:
            return result.stream.answer()
        if result.error is not None or not 200 <= result.status < 300:
            return None
        if self._format is None:
            return _UNREAD
        try:
            return self._format.answer(result.body)
        except MalformedAnswer as error:
            result.error = GarbageReceived(str(error))
            return None

    def _settle(self, result: AttemptResult, answer: Answer | None) -> Cost:
        reservation, found = self._reservation, self._bounds
        assert reservation is not None
        assert found is not None
        if isinstance(result.error, ConnectFailed):
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
            if self._format.resumable and answer.response_id and self._origin.interaction:
                tokens = 0 if answer.usage is None else answer.usage.input + answer.usage.output
                self._parts.conversations.remember_response(self._caller.name, answer.response_id, self._origin.interaction, tokens)
        if self._claim is not None:
            self._parts.conversations.answered(self._claim, answer.turns, self._call_id)
            self._claim = None
        if not self._flush():
            return
        self._over = True
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
        wait_ns = None if result.committed else self._retry_in_ns(result)
        fall_back = wait_ns is None and not result.committed and self._may_fall_back(result)
        recovery: RecoveryAction = "retried" if wait_ns is not None else "fell_back" if fall_back else "none"
        self._record.attempt(result, cost, self._served_by, self._sent, failed=True)
        self._record.failure(result, self._served_by, recovery)
        self._last_failure = result
        if wait_ns is not None:
            self._retries += 1
            self._retries_here += 1
            self._waiting = self._parts.clock.call_later(wait_ns, self._try_again)
        elif fall_back:
            self._next_destination()
        else:
            if result.committed and answer is not None and self._format is not None:
                self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)
            self._give_up(result)

    def _retry_in_ns(self, result: AttemptResult) -> int | None:
        """All retries at the last target; at most one, and no long wait, where another target can serve the call sooner."""
        if result.error is None and result.stream is None and result.status not in RETRYABLE_STATUS:
            return None
        retries = self._caller.agent.retries
        left_ns = self._total_at_ns - self._parts.clock.monotonic_ns()
        asked_ns = retry_after_ns(result.headers, self._parts.clock.wall_ns())
        wait_ns = backoff_ns(retries, self._retries, self._parts.uniform(), asked_ns, left_ns)
        if wait_ns is not None and self._at + 1 < len(self._destinations):
            slow = isinstance(result.error, TimedOut) or wait_ns > retries.base_ns
            return None if slow or self._retries_here else wait_ns
        return wait_ns

    def _may_fall_back(self, result: AttemptResult) -> bool:
        if self._at + 1 >= len(self._destinations) or self._parts.clock.monotonic_ns() >= self._total_at_ns:
            return False
        return result.error is not None or result.stream is not None or result.status in FALLBACK_STATUS

    def _try_again(self) -> None:
        try:
            self._admit()
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.attempt_broke(defect)

    def _next_destination(self) -> None:
        self._at += 1
        self._retries_here = 0
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
        if self._last_failure is not None:
            self._give_up(self._last_failure)
        else:
            self._refuse(denied.refusal)
        if denied.reached is not None:
            self._parts.limit_refused(denied.reached)

    def _give_up(self, result: AttemptResult) -> None:
        if self._flush():
            self._over = True
            self._return_claim()
            if not self._delivery.started:
                self._delivery.own = self._own_headers(self._record.attempts)
            retried = self._retries > 0 or not self._caller.agent.retries.max
            self._delivery.failure(result, self._served_by, retried=retried)

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
            self._over = True
            self._delivery.own = self._own_headers(self._record.attempts)
            self._delivery.canned(body, stream=self._call.stream)

    def _refuse(self, refusal: Refusal) -> None:
        """Deny the call; nothing was spent on it."""
        self._record.refusal(refusal)
        if self._flush():
            self._over = True
            self._return_claim()
            self._delivery.refusal(refusal)

    def _flush(self) -> bool:
        """Hand the record to the operating system; when that fails the call is refused, or its stream broken off."""
        try:
            self._record.flush()
        except StorageError as error:
            self._over = True
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
        self._over = True
        if self._waiting is not None:
            self._waiting.cancel()
        if self._attempt is None:
            self._parts.gate.leave(self._entry)
            self._record.cancelled(self._served_by or "before any attempt")
        else:
            try:
                self._cancel(self._attempt)
            except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
                self.attempt_broke(defect)
        self._return_claim()
        with suppress(StorageError):  # nobody is left to be told; the next call is
            self._record.flush()

    def _cancel(self, attempt: Attempt) -> None:
        result = attempt.cancel()
        self._attempt = None
        result.error = ConnectionCut("the client left")
        answer = self._answer(result)
        cost = self._settle(result, answer)
        self._record.attempt(result, cost, self._served_by, self._sent, failed=True)
        self._record.cancelled(self._served_by)
        if answer is not None and result.committed and self._format is not None:
            self._record.decision(answer, cost, self._served_by, self._claim, result.first_token_ns)

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


def _header_value(text: str) -> bytes:
    """Model names are the agents': nothing in them may end a header."""
    encoded = text.encode("ascii", "replace")
    return encoded if text.isprintable() else bytes(byte if 32 < byte < 127 else 63 for byte in encoded)
