"""What the gateway says when it denies a call, with the numbers in it. None of it looks retryable to the official SDKs, but for a rate."""

from collections.abc import Iterable

from holdfast.clock import SECOND, to_iso
from holdfast.errors import MalformedRequest, did_you_mean
from holdfast.execution.breakers import KeptAway
from holdfast.execution.turn import Excess
from holdfast.money import to_usd
from holdfast.policy.kill import Kill
from holdfast.policy.limit import LimitReached, Unit
from holdfast.wire.call import Refusal
from holdfast.wire.translation import Untranslatable

_REACHED: dict[Unit, str] = {"usd": "spend_limit_reached", "calls": "call_limit_reached", "tokens": "token_limit_reached"}


def limit_reached(reached: LimitReached) -> Refusal:
    """402 for a spend, call or token limit: limit, spent, reserved, asked, when it resets."""
    limit = reached.limit
    show = to_usd if limit.unit == "usd" else str
    resets = None if reached.resets_at_ns is None else to_iso(reached.resets_at_ns)
    until = f"; it has room again at {resets}" if resets else ""
    described = limit.describe(reached.value)
    return Refusal(
        status=402,
        kind=_REACHED[limit.unit],
        message=f"Refused by Holdfast, nothing was spent: the limit {described} is reached "
        f"(spent {show(reached.spent)}, reserved {show(reached.reserved)}, this call needs {show(reached.asked)}){until}.",
        details={
            "limit": described,
            "scope": limit.scope,
            "unit": limit.unit,
            "amount": show(limit.amount),
            "spent": show(reached.spent),
            "reserved": show(reached.reserved),
            "asked": show(reached.asked),
            "resets_at": resets,
        },
    )


def rate_exceeded(excess: Excess) -> Refusal:
    """429 for a rate of the configuration or the provider's own: which, and when the call may be sent again."""
    rate, described = excess.line.limit, excess.line.describe()
    after_s = -(-excess.retry_after_ns // SECOND)
    why = {
        "refuse": "is used up",
        "no_room": "has no room for as long as this call may wait",
        "crowded": "has too many calls waiting for it",
    }[excess.why]
    figures: dict[str, str | int | float | None] = {}
    if rate is not None:
        figures = {"scope": rate.scope, "unit": rate.unit, "amount": rate.amount, "per_s": rate.per_ns // SECOND, "burst": rate.burst}
    return Refusal(
        status=429,
        kind="provider_rate_limited" if rate is None else "rate_limit_reached",
        message=f"Refused by Holdfast, nothing was spent: the rate {described} {why}; send the call again in {after_s} s.",
        details={"rate": described, **figures, "retry_after_s": after_s},
        retry_after_s=after_s,
    )


def circuit_open(kept: KeptAway) -> Refusal:
    """503 for an open circuit breaker: which, since when, why, and when it may be probed."""
    after_s = None if kept.retry_after_ns is None else max(1, -(-kept.retry_after_ns // SECOND))
    state = {"open": "is open", "half_open": "is half-open and being probed", "isolated": "is held open"}[kept.state]
    since = f" since {to_iso(kept.since)}" if kept.since else ""
    again = f"`holdfast breaker reset {kept.name}` closes it" if after_s is None else f"send the call again in {after_s} s"
    return Refusal(
        status=503,
        kind="circuit_open",
        message=f"Refused by Holdfast, nothing was spent: the circuit breaker {kept.name} {state}{since}: {kept.reason}; {again}.",
        details={
            "breaker": kept.name,
            "state": kept.state,
            "since": to_iso(kept.since) if kept.since else None,
            "reason": kept.reason,
            "retry_after_s": after_s,
        },
        retry_after_s=after_s,
    )


def killed(kill: Kill) -> Refusal:
    """403 for what the kill switch stops."""
    message = f"Refused by Holdfast: {kill.describe()} was stopped with the kill switch{kill.why}."
    return Refusal(status=403, kind="killed", message=message, details=_details(kill))


def tool_killed(kill: Kill) -> Refusal:
    """403 for an answer that was paid for and is not delivered."""
    message = f"Stopped by Holdfast: the answer calls the tool {kill.value}, which was stopped with the kill switch{kill.why}."
    return Refusal(status=403, kind="killed", message=message, details=_details(kill))


def _details(kill: Kill) -> dict[str, str | int | float | None]:
    return {"scope": kill.scope, "value": kill.value, "reason": kill.reason, "author": kill.author, "since": to_iso(kill.at)}


def ledger_unavailable(reason: str) -> Refusal:
    message = f"Refused by Holdfast: limits cannot be enforced now: {reason.rstrip('.')}."
    return Refusal(status=503, kind="limits_unavailable", message=message)


def record_unavailable(reason: str) -> Refusal:
    return Refusal(status=503, kind="record_unavailable", message=f"Refused by Holdfast: calls cannot be recorded now: {reason}.")


def too_many_calls(most: int) -> Refusal:
    message = f"Refused by Holdfast: this worker has {most} calls in progress; send it again in a moment, or run more workers."
    return Refusal(status=503, kind="too_many_calls", message=message)


def malformed(error: MalformedRequest, encoding: bytes | None) -> Refusal:
    """400 with the field that is wrong, or 415 for a body that was compressed: it is not read, so it cannot be guarded."""
    if encoding in (None, b"identity"):
        return Refusal(status=400, kind="invalid_request", message=str(error), param=error.param)
    message = (
        f"Refused by Holdfast: it does not read bodies compressed with {encoding.decode('latin-1')[:20]}; switch request compression off."
    )
    return Refusal(status=415, kind="invalid_request", message=message)


def untranslatable(error: Untranslatable, label: str) -> Refusal:
    """400 for what the target's format has no place for; where other targets follow, they are tried first."""
    message = f"Refused by Holdfast: {label} speaks another API format, into which this call cannot be translated: {error}"
    return Refusal(status=400, kind="untranslatable", message=message, param=error.param)


def defect() -> Refusal:
    return Refusal(status=500, kind="defect", message="Holdfast failed at this call by a defect of its own; its log says where.")


def unknown_key() -> Refusal:
    return Refusal(
        status=403,
        kind="unknown_key",
        message="Refused by Holdfast: this key belongs to no agent; set the key of an agent in the configuration as the API key. "
        "Web pages of other sites always need one.",
    )


def unknown_path(api: str) -> Refusal:
    """A path of a provider's API that nobody allowed: there is no route around the guard."""
    way_out = "add it to the provider's passthrough list to allow it"
    if api.partition(" ")[2] in ("/tools", "/jobs"):
        way_out = "the gateway's own paths are /tools/NAME/… for the configured tools, and /jobs/ID for a job"
    message = f"Refused by Holdfast: {api} is not let through; {way_out}."
    return Refusal(status=404, kind="unknown_path", message=message)


def unknown_tool(name: str, known: Iterable[str]) -> Refusal:
    message = f"Refused by Holdfast: the configuration has no tool {name[:64]!r}{did_you_mean(name[:64], known)}"
    return Refusal(status=404, kind="unknown_tool", message=message)


def strange_path(api: str) -> Refusal:
    """A path that the tool's server may fold into another one, outside its base URL."""
    message = f"Refused by Holdfast: {api} is not written plainly: without //, dot segments, backslashes, semicolons and %25."
    return Refusal(status=404, kind="unknown_path", message=message)


def websocket(api: str) -> Refusal:
    """What goes through a WebSocket could not be limited. On 426 Codex goes over to plain HTTP at once, on 404 after seven seconds."""
    message = f"Refused by Holdfast: {api} is served over plain HTTP only, without a WebSocket."
    return Refusal(status=426, kind="websocket", message=message)


def tool_not_allowed(name: str, server: str) -> Refusal:
    """A tool of an MCP server that the configuration keeps from agents."""
    message = (
        f"Refused by Holdfast: the tool {name[:128]!r} of {server} is not allowed (tools.{server}.allow and .deny in the configuration); "
        "use one of those that tools/list offers."
    )
    return Refusal(status=403, kind="tool_not_allowed", message=message, details={"tool": name[:128], "server": server})


def not_mcp(why: str) -> Refusal:
    """A request that the endpoint of an MCP server has no use for, or that could get around what is checked."""
    return Refusal(status=404, kind="unknown_path", message=f"Refused by Holdfast: {why}.")


def header_mismatch(why: str) -> Refusal:
    return Refusal(status=400, kind="header_mismatch", message=f"Refused by Holdfast: {why}.")


def no_destination(model: str) -> Refusal:
    return Refusal(
        status=503,
        kind="no_target",
        message=f"Refused by Holdfast: no configured provider can serve the model {model!r} in this API format; "
        "name one in the agent's routes.",
    )


def no_key(owner: str, why: str) -> Refusal:
    """owner: `provider openai`, `tool crm`."""
    kind = f"{owner.partition(' ')[0]}_without_key"
    return Refusal(status=503, kind=kind, message=f"Refused by Holdfast: {owner} has no key: {why}")


def queue_full(waited_ns: int, labels: Iterable[str], after_s: int, last: str) -> Refusal:
    """503 for a call that may not even wait: as many do as this process holds, or as one agent may have."""
    what = "as many calls as may wait for it do, or more urgent ones came"
    return _unserved("queue_full", what, waited_ns, labels, after_s, last)


def queue_timeout(waited_ns: int, labels: Iterable[str], after_s: int, last: str) -> Refusal:
    """503 for a call that has waited as long as it may."""
    return _unserved("queue_timeout", f"the call has waited for {waited_ns / SECOND:.1f} s", waited_ns, labels, after_s, last)


def _unserved(kind: str, what: str, waited_ns: int, labels: Iterable[str], after_s: int, last: str) -> Refusal:
    targets, said = " or ".join(labels), f" Last: {last}." if last else ""
    return Refusal(
        status=503,
        kind=kind,
        message=f"Refused by Holdfast: {targets} cannot serve it now, and {what}; send it again in {after_s} s.{said}",
        details={"targets": targets, "waited_s": round(waited_ns / SECOND, 3), "retry_after_s": after_s},
        retry_after_s=after_s,
        by_sdk=False,
    )


def ending() -> Refusal:
    message = "Refused by Holdfast: the call waited for its target, and this process ends; send it again."
    return Refusal(status=503, kind="ending", message=message, retry_after_s=1)


def upstream_failed(status: int, what: str) -> Refusal:
    return Refusal(status=status, kind="upstream_failed", message=f"No target could answer. Last: {what}.")
