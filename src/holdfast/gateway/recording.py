"""Turns what happened to a call into events: its decision, its attempts, its errors."""

import traceback
from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from msgspec import Raw, Struct

from holdfast.clock import MILLISECOND, SECOND, Clock
from holdfast.errors import ConnectionCut, GarbageReceived, TimedOut
from holdfast.events import ApiCall, Context, Decision, Error, InteractionStarted, LimitRefusal
from holdfast.events.api_call import ToolUse
from holdfast.events.error import ErrorType, RecoveryAction, Severity
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.recording import Recorder
from holdfast.execution.turn import Turn
from holdfast.gateway.admission import Cost
from holdfast.policy.history import Claim
from holdfast.policy.limit import LimitReached
from holdfast.wire.call import Answer, Call, Refusal

_MAX_ERROR_TEXT = 64 * 1024
_encode = msgspec.json.Encoder().encode


class Origin(Struct, frozen=True, kw_only=True):
    """Whose call it is: the fields that all of its events share."""

    agent: str
    release: str
    run: str
    user: str
    interaction: str
    identified_by: str
    keep_content: bool


class Subject(Struct, frozen=True, kw_only=True):
    """What is recorded. call_id: of the whole call, and of the decision that it may become; attempts and errors number from it.
    target_api: method and path as the agent asked. began_ns: monotonic; began_wall_ns: since the epoch."""

    call_id: str
    target_api: str
    format_name: str
    call: Call
    began_ns: int
    began_wall_ns: int


class CallRecord:
    """Collects the events of one call; nothing is written before `flush`. repeated: how often the agent's SDK has sent it before."""

    def __init__(self, recorder: Recorder, clock: Clock, origin: Origin, subject: Subject) -> None:
        self._recorder = recorder
        self._clock = clock
        self._origin = origin
        self._subject = subject
        self.attempts = 0
        self.repeated = 0
        self._errors = 0
        self._last_error = ""
        self._last_recovery: RecoveryAction = "none"

    def flush(self) -> None:
        """Hand everything to the operating system; raises StorageError when it cannot be recorded."""
        self._recorder.flush()

    def interaction_started(self) -> None:
        who = self._origin
        self._recorder.append(
            InteractionStarted(
                interaction=who.interaction,
                timestamp=self._subject.began_wall_ns,
                agent=who.agent,
                release=who.release,
                run=who.run,
                user_id=who.user,
                identified_by=who.identified_by,
            )
        )

    def attempt(self, result: AttemptResult, cost: Cost, served_by: str, sent: int, number: int, *, failed: bool) -> None:
        """One attempt at a provider; a failed one is followed by its `failure`. number: from 1; a hedged one may end before its elder."""
        self._api_call(result, cost, f"{served_by} {self._subject.target_api}", sent, number, None, failed=failed)

    def tool_attempt(
        self, result: AttemptResult, cost: Cost, target: str, sent: int, number: int, use: ToolUse | None, *, failed: bool
    ) -> None:
        """One attempt at a tool, or one of several calls that went out with the attempt of this `number`. target: it and what was asked of
        it. A failed one is followed by its `failure` or `tool_error`."""
        self._api_call(result, cost, target, sent, number, use, failed=failed)

    def _api_call(
        self, result: AttemptResult, cost: Cost, target: str, sent: int, number: int, use: ToolUse | None, *, failed: bool
    ) -> None:
        who, subject = self._origin, self._subject
        self.attempts += 1
        self._recorder.append(
            ApiCall(
                call_id=self._attempt_id(),
                timestamp=self._clock.wall_ns() - (self._clock.monotonic_ns() - result.began_ns),
                agent=who.agent,
                release=who.release,
                run=who.run,
                user_id=who.user,
                interaction=who.interaction,
                decision_id=subject.call_id if subject.format_name else "",
                target_api=target,
                payload=subject.call.params if who.keep_content else Raw(b"{}"),
                response_code=result.status,
                latency_ms=(result.ended_ns - result.began_ns) // 1000 / 1000,
                attempt=number,
                retry_count=self.repeated + number - 1,
                bytes_sent=sent,
                bytes_received=result.received,
                usage=cost.usage,
                cost=cost.amount,
                cost_source=cost.source,
                error_id=f"{subject.call_id}.e{self._errors + 1}" if failed else "",
                tool=use,
            )
        )

    def failure(self, result: AttemptResult, served_by: str, recovery: RecoveryAction) -> None:
        """How the last attempt failed, and what is done about it."""
        hopeless = recovery == "none" and (result.status == 0 or result.status >= 500 or result.error is not None)
        self._error(
            error_type_of(result),
            describe_failure(result, served_by),
            recovery=recovery,
            severity="critical" if hopeless else "warning",
            detail=failure_detail(result),
        )

    def tool_error(self, message: str, said: bytes, recovery: RecoveryAction = "none") -> None:
        """A tool has failed, and says so."""
        self._error("tool_error", message, severity="warning", recovery=recovery, detail=said[:_MAX_ERROR_TEXT].decode("utf-8", "replace"))

    def outrun(self, served_by: str) -> None:
        """The last attempt was given up because the one beside it answered."""
        self._error("cancelled", f"{served_by}: the attempt beside it answered first", severity="info", recovery="hedged")

    def passed_over(self, refusal: Refusal, *, canned: bool) -> None:
        """A target could not be tried; another one, or a canned reply, takes its place."""
        recovery: RecoveryAction = "circuit_open" if refusal.kind == "circuit_open" else "canned" if canned else "fell_back"
        self._error("refused", refusal.message, severity="warning", recovery=recovery)

    def canned(self, text: str, claim: Claim | None) -> None:
        """The route's own reply is the answer."""
        self._last_recovery = "canned"
        self.decision(Answer(text=text, finish_reason="canned"), Cost(0, 0, "free", None), "reply", claim, None)

    def cancelled(self, served_by: str) -> None:
        """The agent left before the answer's end."""
        self._error("cancelled", f"{served_by}: the client left before the answer's end", severity="info")

    def queued(self, turn: Turn | None) -> None:
        """The call has waited for a rate, if it did."""
        if turn is not None and turn.waited_for is not None:
            waited = f"waited {turn.waited_ns / SECOND:.3f} s for the rate {turn.waited_for.describe()}"
            self._error("rate_limit", waited, severity="info", recovery="queued")

    def waited(self, waited_ns: int, labels: Iterable[str], why: ErrorType) -> None:
        """The call has waited for one of its targets. why: how the last attempt at one of them failed."""
        waited = f"waited {waited_ns / SECOND:.3f} s in the admission queue for {' or '.join(labels)}"
        self._error(why, waited, severity="info", recovery="queued")

    def stopped(self, refusal: Refusal) -> None:
        """The kill switch ended the call after it had cost something."""
        self._error("refused", refusal.message, severity="warning")

    def defect(self, error: Exception) -> None:
        """Holdfast itself failed."""
        trace = "".join(traceback.format_exception(error))
        self._error("internal", f"defect: {type(error).__name__}", severity="critical", detail=trace)

    def unchecked(self, reason: str) -> None:
        """The call goes on although no limit could be checked for it."""
        self._error("limits_unavailable", f"not checked against any limit: {reason}", severity="critical")

    def refusal(self, refusal: Refusal) -> None:
        """The call was denied before it cost anything."""
        kind: ErrorType = "parsing" if refusal.kind == "invalid_request" else "refused"
        recovery: RecoveryAction = "circuit_open" if refusal.kind == "circuit_open" else "refused"
        self._error(kind, refusal.message, recovery=recovery, severity="warning")

    def loop(self, message: str, *, stopped: bool) -> None:
        """The agent goes round in circles; stopped: so the call is refused, else it goes on."""
        before = self._last_error, self._last_recovery
        self._error("loop", message, recovery="loop_stopped" if stopped else "none", severity="warning")
        if not stopped:
            self._last_error, self._last_recovery = before  # the decision to come has not failed

    def _error(
        self, error_type: ErrorType, message: str, *, severity: Severity, recovery: RecoveryAction = "none", detail: str = ""
    ) -> None:
        who, subject = self._origin, self._subject
        self._errors += 1
        self._last_error, self._last_recovery = f"{subject.call_id}.e{self._errors}", recovery
        self._recorder.append(
            Error(
                error_id=self._last_error,
                timestamp=self._clock.wall_ns(),
                agent=who.agent,
                release=who.release,
                run=who.run,
                user_id=who.user,
                interaction=who.interaction,
                decision_id=subject.call_id if subject.format_name else "",
                call_id=self._attempt_id() if self.attempts else "",
                error_type=error_type,
                message=message,
                full_traceback=detail,
                recovery_action=recovery,
                severity=severity,
            )
        )

    def _attempt_id(self) -> str:
        return f"{self._subject.call_id}.{self.attempts}"

    def limit_refusal(self, reached: LimitReached) -> None:
        who = self._origin
        self._recorder.append(
            LimitRefusal(
                timestamp=self._clock.wall_ns(),
                agent=who.agent,
                release=who.release,
                run=who.run,
                user_id=who.user,
                interaction=who.interaction,
                limit=reached.limit.describe(reached.value),
                scope=reached.limit.scope,
                unit=reached.limit.unit,
                amount=reached.limit.amount,
                spent=reached.spent,
                reserved=reached.reserved,
                asked=reached.asked,
                resets_at=reached.resets_at_ns,
            )
        )

    def decision(self, answer: Answer, cost: Cost, served_by: str, claim: Claim | None, first_token_ns: int | None) -> None:
        """The decision that the answer is, with what is new of the prompt since the decision before it."""
        who, subject = self._origin, self._subject
        call = subject.call
        inherited = 0 if claim is None else claim.inherited
        full = who.keep_content
        self._recorder.append(
            Decision(
                decision_id=subject.call_id,
                timestamp=subject.began_wall_ns,
                agent=who.agent,
                release=who.release,
                run=who.run,
                user_id=who.user,
                interaction=who.interaction,
                model=call.model,
                served_by=served_by,
                format=subject.format_name,
                parent=claim.continues.decision if claim is not None and claim.continues is not None and inherited else "",
                inherited_messages=inherited,
                input_messages=_array(call.messages[inherited:]) if full else Raw(b"[]"),
                input_params=call.params if full else Raw(b"{}"),
                context=self._contexts(call) if full else (),
                answer=(answer.text or answer.refusal) if full else "",
                reasoning_chain=answer.reasoning if full else "",
                chosen_action=answer.chosen_action,
                tool_calls=Raw(_encode(answer.tool_calls)) if answer.tool_calls and full else Raw(b"[]"),
                finish_reason=answer.finish_reason,
                confidence_score=answer.confidence,
                confidence_source="none" if answer.confidence is None else "logprobs",
                usage=cost.usage or answer.usage,
                cost=cost.amount,
                cost_source=cost.source,
                latency_ns=self._clock.monotonic_ns() - subject.began_ns,
                first_token_ns=None if first_token_ns is None else first_token_ns - subject.began_ns,
                attempts=self.attempts,
                complete=answer.complete,
                error_id=self._last_error,
                recovery_action=self._last_recovery,
            )
        )

    def _contexts(self, call: Call) -> tuple[str, ...]:
        """Store system prompt and tools once per journal file; a decision names them by content hash."""
        digests: list[str] = []
        for role, content in (("system", call.system), ("tools", call.tools)):
            if content is None:
                continue
            digest = blake2b(content, digest_size=16).hexdigest()
            digests.append(digest)
            if not self._recorder.has_context(digest):
                self._recorder.append(Context(digest=digest, role="system" if role == "system" else "tools", content=content))
        return tuple(digests)


def error_type_of(result: AttemptResult) -> ErrorType:
    """The checklist's name for how an attempt failed."""
    if result.error is not None:
        if isinstance(result.error, TimedOut):
            return "timeout"
        return "parsing" if isinstance(result.error, GarbageReceived) else "connection"
    by_status: dict[int, ErrorType] = {401: "auth", 403: "auth", 429: "rate_limit", 408: "timeout", 504: "timeout"}
    return by_status.get(result.status, "api_error")


def describe_failure(result: AttemptResult, served_by: str) -> str:
    """One sentence for people about how an attempt failed."""
    if result.error is not None:
        where = "after its first token" if result.committed else "before its first token" if result.stream is not None else ""
        cut = f" {where}" if where and isinstance(result.error, ConnectionCut) else ""
        return f"{served_by}: {result.error}{cut}"
    if result.stream is not None:
        return f"{served_by}: error event in the stream"
    return f"{served_by}: answered {result.status} after {(result.ended_ns - result.began_ns) // MILLISECOND} ms"


def failure_detail(result: AttemptResult) -> str:
    """What the upstream itself said about it."""
    said = result.body or (result.stream.error if result.stream is not None else None) or b""
    return said[:_MAX_ERROR_TEXT].decode("utf-8", "replace")


def _array(items: tuple[Raw, ...]) -> Raw:
    return Raw(b"[" + b",".join(items) + b"]")
