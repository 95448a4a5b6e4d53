"""One call of a tool: let through, relayed, made again where that is safe, settled, recorded.

The sibling of `GuardedCall` for what speaks no model's format. Bodies pass both ways as they come; what happened is written to the
journal before the answer's end goes out.
"""

import logging
from contextlib import suppress

from msgspec import structs

from holdfast.clock import Timer
from holdfast.errors import ConnectFailed, ConnectionCut, GarbageReceived, MalformedAnswer, StorageError, Withdrawn
from holdfast.events.error import RecoveryAction
from holdfast.execution.attempt import AttemptResult
from holdfast.execution.relay import NEVER, Relay, RelayOptions
from holdfast.execution.upstream import Headers
from holdfast.gateway import refusals
from holdfast.gateway.admission import Cost, settlement
from holdfast.gateway.arrival import Times, arrive
from holdfast.gateway.delivery import Delivery
from holdfast.gateway.endpoints import Endpoint
from holdfast.gateway.gate import Admitted, Denied, killed
from holdfast.gateway.headers import own_headers
from holdfast.gateway.identity import Caller
from holdfast.gateway.options import ToolOptions
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import describe_failure
from holdfast.gateway.recovery import Recovery
from holdfast.gateway.routing import Destination
from holdfast.gateway.tool_answer import ToolAnswer
from holdfast.gateway.tool_request import returned_headers, tool_request
from holdfast.gateway.tool_traffic import Traffic
from holdfast.http.message import Request, Response
from holdfast.policy.repeating import may_repeat
from holdfast.wire.call import Call, Refusal

_UNREAD = Call(model="", generates=False)
_FREE = Cost(0, 0, "free", None)
_log = logging.getLogger("holdfast.gateway")


class ToolCall:
    """A call in progress; it ends by itself, with an answer, a refusal or the client's leaving. Implements `RelayListener`."""

    # At most 30 attributes: Python 3.11 gives an object with more of them a hash table of its own, of 1.4 KB.
    def __init__(
        self,
        parts: Parts,
        caller: Caller,
        endpoint: Endpoint,
        request: Request,
        response: Response,
        target: tuple[Destination, ToolOptions],
        traffic: Traffic,
    ) -> None:
        self._parts = parts
        self._caller = caller
        self._request = request
        self._destination, self._tool = target
        self._traffic = traffic
        self._call_id = parts.new_id()
        began_ns, total_ns = parts.clock.monotonic_ns(), caller.agent.timeouts.total_ns
        if self._tool.timeout_ns is not None:
            total_ns = min(total_ns, self._tool.timeout_ns)
        self._total_at_ns = began_ns + total_ns
        arrival = arrive(parts, caller, endpoint, _UNREAD, self._call_id, Times(began_ns, self._total_at_ns), self._tool.price)
        self._entry, self._record = arrival.entry, arrival.record
        self._answer = ToolAnswer(response, Delivery(response, endpoint), traffic)
        self._recovery = Recovery(self._tool.retries)
        self._granted: list[Admitted] = []
        self._relay: Relay | None = None
        self._waiting: Timer | None = None
        self._tries = 0
        self._over = False
        response.disconnected = self._client_left
        response.pausing = self._pause
        response.resuming = self._resume
        parts.in_progress.add(self)

    def start(self) -> None:
        if self._flush():  # writes what an earlier call could not: without a record no money is spent
            self._admit()

    def refuse(self, refusal: Refusal) -> None:
        """Deny the call; nothing was spent on it."""
        self._record.refusal(refusal)
        if self._flush():
            self._end()
            self._answer.refused(refusal)

    def _admit(self) -> None:
        self._waiting = None
        denied = self._killed_now()
        if denied is not None:
            self.refuse(denied.refusal)
        elif self._destination.provider.key_error:
            self.refuse(refusals.no_key(self._destination.owner, self._destination.provider.key_error))
        elif self._traffic.calls:
            self._parts.gate.admit(self._entry, self._destination, self._admitted)
        else:
            self._send()

    def _admitted(self, outcome: Admitted | Denied) -> None:
        try:
            self._go_on(outcome)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.relay_broke(defect)

    def _go_on(self, outcome: Admitted | Denied) -> None:
        if isinstance(outcome, Denied):
            self._return_granted()
            if not self._over:
                self._denied(outcome)
            return
        self._granted.append(outcome)
        if self._over:
            self._return_granted()
            return
        if outcome.unchecked:
            self._record.unchecked(outcome.unchecked)
        self._record.queued(outcome.turn)
        if len(self._granted) < self._traffic.calls:
            self._parts.gate.admit(self._entry, self._destination, self._admitted)
        elif (denied := self._killed_now()) is not None:  # since it began to wait
            self._return_granted()
            self.refuse(denied.refusal)
        else:
            self._send()

    def _return_granted(self) -> None:
        """Nothing was sent."""
        for each in self._granted:
            each.cancel()
        self._granted.clear()

    def _denied(self, denied: Denied) -> None:
        if denied.reached is not None:
            self._record.limit_refusal(denied.reached)
        self.refuse(denied.refusal)
        if denied.reached is not None:
            self._parts.limit_refused(denied.reached)

    def _killed_now(self) -> Denied | None:
        kills = self._parts.gate.kills()
        denied = killed(kills, self._entry, self._destination)
        if denied is None and kills.tools and (kill := kills.forbidden_tool(self._traffic.tools)) is not None:
            return Denied(refusals.killed(kill), kill=kill, elsewhere=False)
        return denied

    def _withdrawn(self) -> bool:
        return self._killed_now() is not None

    def _send(self) -> None:
        parts, tool, timeouts, agent = self._parts, self._tool, self._caller.agent.timeouts, self._caller.agent
        self._tries += 1
        self._recovery.begins(parts.allowances.of(agent.name, self._destination.label, tool.retries.share))
        self._answer.own = own_headers(self._destination.label, self._tries, "", self._entry.origin.interaction, None, None)
        connect_ns = timeouts.connect_ns if tool.connect_ns is None else tool.connect_ns
        outgoing = tool_request(
            self._request, self._destination, self._traffic, connect_ns, self._withdrawn, once=not self._may_repeat(reached=True)
        )
        endless = self._traffic.endless
        idle_ns = timeouts.idle_ns if tool.idle_ns is None else tool.idle_ns
        options = RelayOptions(
            first_byte_ns=tool.first_byte_ns,
            idle_ns=None if endless else idle_ns,
            total_at_ns=NEVER if endless else self._total_at_ns,
        )
        self._answer.again()
        self._relay = relay = Relay(parts.upstream, outgoing, options, parts.clock, self)
        relay.start()

    def relay_started(self, status: int, headers: Headers) -> None:
        relay = self._relay
        assert relay is not None
        relay.result.headers = headers = returned_headers(headers, self._destination)
        try:
            self._answer.begin(relay.result, headers)
        except MalformedAnswer as error:
            relay.fail(GarbageReceived(str(error)))

    def relay_data(self, data: bytes) -> None:
        relay = self._relay
        assert relay is not None
        try:
            self._answer.take(relay.result, data)
        except MalformedAnswer as error:
            relay.fail(GarbageReceived(str(error)))

    def relay_ended(self, result: AttemptResult) -> None:
        relay, self._relay = self._relay, None
        assert relay is not None
        try:
            self._answer.complete(result)
        except MalformedAnswer as error:
            result.error = GarbageReceived(str(error))
        costs = self._settle(result)
        if isinstance(result.error, Withdrawn):
            self._admit()
        elif result.error is None and result.status < 400:
            self._record_attempt(result, costs, relay.sent, "none")
            if self._flush():
                self._end()
                self._answer.finish(result)
        else:
            self._fail(result, costs, relay.sent)

    def relay_broke(self, defect: Exception) -> None:
        """A defect of our own: the agent gets an answer all the same, and what was reserved counts as spent."""
        _log.error("call %s broke", self._call_id, exc_info=defect)
        self._end()
        if self._relay is not None:
            self._relay.cancel()
            self._relay = None
        for each in self._granted:
            each.passage.give_back()
            each.reservation.settle(each.reservation.usd, each.reservation.tokens)
        self._granted.clear()
        with suppress(Exception):  # the record may be what broke
            self._record.defect(defect)
            self._record.flush()
        self._answer.refused(refusals.defect())

    def _settle(self, result: AttemptResult) -> list[Cost]:
        """What each call that counts has cost."""
        granted, self._granted = self._granted, []
        unsent = isinstance(result.error, ConnectFailed | Withdrawn)
        costs: list[Cost] = []
        for each in granted:
            reservation, cost = each.reservation, _FREE
            if unsent:
                reservation.cancel()
            else:
                cost = settlement(result, None, each.bounds, reservation.usd, reservation.tokens)
                reservation.settle(cost.charged, cost.tokens)
            self._parts.gate.ended(self._entry, self._destination, each, result, cost)
            costs.append(cost)
        return costs

    def _fail(self, result: AttemptResult, costs: list[Cost], sent: int) -> None:
        """Make it again where that is safe and helps, or pass the failure on; what was done stands on the error."""
        wait_ns = None if result.committed else self._retry_in_ns(result)
        self._record_attempt(result, costs, sent, "none" if wait_ns is None else "retried")
        if wait_ns is not None:
            self._waiting = self._parts.clock.call_later(wait_ns, self._try_again)
        elif self._flush():
            self._end()
            self._answer.failed(result, self._destination.label, retried=self._recovery.made > 0)

    def _may_repeat(self, *, reached: bool) -> bool:
        upload = self._traffic.upload
        return may_repeat(
            self._request.method,
            self._tool.repeatable,
            keyed=self._tool.mcp is None and self._request.header(b"idempotency-key") is not None,
            reached=reached,
            kept=self._tool.mcp is None and (upload is None or not upload.started),
        )

    def _retry_in_ns(self, result: AttemptResult) -> int | None:
        if not self._may_repeat(reached=not isinstance(result.error, ConnectFailed)) or self._traffic.endless:
            return None
        left_ns = self._total_at_ns - self._parts.clock.monotonic_ns()
        return self._recovery.retry_in_ns(result, left_ns, self._parts.clock, self._parts.uniform(), last=True)

    def _try_again(self) -> None:
        try:
            self._admit()
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.relay_broke(defect)

    def _record_attempt(self, result: AttemptResult, costs: list[Cost], sent: int, recovery: RecoveryAction) -> None:
        """Every call that went out with the attempt, and how it failed."""
        label, record = self._destination.label, self._record
        broken = result.error is not None or result.status >= 400
        for at, part in enumerate(self._traffic.parts(result)):
            heard = part.ended_ns is not None  # its own answer came, whatever became of the rest
            failed = part.failed or (broken and not heard)
            its = result if part.ended_ns is None else structs.replace(result, ended_ns=part.ended_ns)
            cost = costs[at] if at < len(costs) else _FREE
            record.tool_attempt(its, cost, f"{label} {part.api}", sent, self._tries, part.use, failed=failed)
            if part.failed:
                said = part.said if self._entry.origin.keep_content else b""
                record.tool_error(f"{label}: {part.api} failed", said, recovery)
            elif failed and result.error is None:
                record.tool_error(describe_failure(result, label), result.body, recovery)
            elif failed:
                record.failure(result, label, recovery)

    def _flush(self) -> bool:
        """Hand the record to the operating system; when that fails the call is refused, or its answer broken off."""
        try:
            self._record.flush()
        except StorageError as error:
            self._end()
            self._return_granted()
            refusal = refusals.record_unavailable(str(error))
            if not self._record.attempts:  # held in memory until it can be written
                self._record.refusal(refusal)
            self._answer.refused(refusal)
            return False
        return True

    def _client_left(self) -> None:
        """Stop the tool at once, settle, record how far it came."""
        if self._over:
            return
        try:
            self._withdraw("the client left")
            if not self._traffic.satisfied:
                self._record.cancelled(self._destination.label)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.relay_broke(defect)
        with suppress(StorageError):  # nobody is left to be told; the next call is
            self._record.flush()

    def _withdraw(self, why: str) -> bool:
        """Whether something had been sent; it was recorded then, but for its error. What has been answered ends well so."""
        self._end()
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        relay, self._relay = self._relay, None
        if relay is None:
            self._parts.gate.leave(self._entry)
            self._return_granted()
            return False
        result, cut = relay.cancel(), not self._traffic.satisfied
        if cut:
            result.error = ConnectionCut(why)
        for each in self._granted:
            each.passage.give_back()  # that it is dropped says nothing about the tool
        costs = self._settle(result)
        if not cut:
            self._record_attempt(result, costs, relay.sent, "none")
            return True
        for at, part in enumerate(self._traffic.parts(result)):
            cost = costs[at] if at < len(costs) else _FREE
            target = f"{self._destination.label} {part.api}"
            self._record.tool_attempt(result, cost, target, relay.sent, self._tries, part.use, failed=True)
        return True

    def kills_changed(self) -> None:
        """Carry out what the kill switch says now: refuse what waits, cut off what is to be cut; see `Parts.in_progress`."""
        try:
            denied = self._killed_now()
            if denied is not None and (self._relay is None or (denied.kill is not None and denied.kill.mode == "cut")):
                self._stop(denied.refusal)
        except Exception as defect:  # noqa: BLE001 - no caller of this callback could do better
            self.relay_broke(defect)

    def _stop(self, refusal: Refusal) -> None:
        if self._withdraw("stopped with the kill switch"):
            self._record.stopped(refusal)
        else:
            self._record.refusal(refusal)
        if self._flush():
            self._answer.refused(refusal)

    def _end(self) -> None:
        self._over = True
        self._parts.in_progress.discard(self)

    def _pause(self) -> None:
        if self._relay is not None:
            self._relay.pause()

    def _resume(self) -> None:
        if self._relay is not None:
            self._relay.resume()
