"""A decision in words and as JSON: one line, one record, or the whole story with prompt, calls and errors."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from holdfast.cli._output import UNKNOWN, Text, duration, local_time, one_line, usd, usd_number
from holdfast.clock import to_iso
from holdfast.events import ApiCall, Decision, Error, InteractionStarted, LimitRefusal
from holdfast.events.usage import Usage
from holdfast.money import to_usd
from holdfast.store.prompt import FullInput

_SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow", "info": ""}
_PLAIN_PARTS = ("text", "thinking", "refusal", "output", "content")


def served(decision: Decision) -> str:
    """Who answered, and the model that was asked for where that is another."""
    answered = decision.served_by or decision.model
    return answered if answered.endswith(decision.model) else f"{answered} for {decision.model}"


def shortened(ids: Sequence[str]) -> dict[str, str]:
    """Beginnings of identifiers that tell the given ones apart, and that look-ups accept."""
    distinct = set(ids)
    for length in (13, 18, 23):
        short = {identifier: identifier[:length] for identifier in distinct}
        if len(set(short.values())) == len(distinct):
            return short
    return {identifier: identifier for identifier in distinct}


def tokens(usage: Usage | None) -> str:
    """`input/output`."""
    return UNKNOWN if usage is None else f"{usage.input}/{usage.output}"


def flags(decision: Decision) -> list[str]:
    """What was not ordinary about the decision, a word each."""
    found = []
    if not decision.complete:
        found.append("cut")
    if decision.recovery_action != "none":
        found.append(decision.recovery_action)
    elif decision.error_id:
        found.append("error")
    if decision.cost_source in ("bound", "unpriced"):
        found.append({"bound": "cost-estimated", "unpriced": "unpriced"}[decision.cost_source])
    return found


def decision_record(decision: Decision) -> dict[str, Any]:
    """The decision for programs, with the checklist's names; `input_messages` is what is new since the decision `parent`."""
    return {
        "decision_id": decision.decision_id,
        "timestamp": to_iso(decision.timestamp),
        "agent": decision.agent,
        "release": decision.release,
        "run": decision.run,
        "interaction": decision.interaction,
        "user_id": decision.user_id,
        "chosen_action": decision.chosen_action,
        "tool_calls": decision.tool_calls,
        "answer": decision.answer,
        "reasoning_chain": decision.reasoning_chain,
        "confidence_score": decision.confidence_score,
        "confidence_source": decision.confidence_source,
        "model": decision.model,
        "served_by": decision.served_by or decision.model,
        "format": decision.format,
        "finish_reason": decision.finish_reason,
        "complete": decision.complete,
        "tokens": usage_record(decision.usage),
        "cost_usd": usd_number(decision.cost),
        "cost_source": decision.cost_source,
        "latency_ms": decision.latency_ns / 1e6,
        "first_token_ms": None if decision.first_token_ns is None else decision.first_token_ns / 1e6,
        "attempts": decision.attempts,
        "error_id": decision.error_id,
        "recovery_action": decision.recovery_action,
        "job": decision.job,
        "flags": flags(decision),
        "parent": decision.parent,
        "inherited_messages": decision.inherited_messages,
        "input_messages": decision.input_messages,
    }


def whole_record(decision: Decision, full: FullInput, events: Iterable[ApiCall | Error]) -> dict[str, Any]:
    """The decision with its whole `input_prompt`, its api calls and its errors."""
    record = decision_record(decision)
    del record["input_messages"], record["inherited_messages"]
    events = list(events)
    return record | {
        "input_prompt": {"system": full.system, "messages": full.messages, "tools": full.tools, "params": full.params},
        "input_missing": full.missing,
        "api_calls": [event_record(event) for event in events if isinstance(event, ApiCall)],
        "errors": [event_record(event) for event in events if isinstance(event, Error)],
    }


def event_record(event: ApiCall | Error | InteractionStarted | LimitRefusal | Decision) -> dict[str, Any]:
    """Any event for programs: ISO times, USD, the same names as in the journal otherwise."""
    if isinstance(event, Decision):
        return {"kind": "decision"} | decision_record(event)
    record = {"kind": event.__struct_config__.tag} | msgspec.structs.asdict(event) | {"timestamp": to_iso(event.timestamp)}
    if isinstance(event, ApiCall):
        record["cost_usd"] = usd_number(record.pop("cost"))
        record["tokens"] = usage_record(record.pop("usage"))
    if isinstance(event, LimitRefusal) and event.resets_at is not None:
        record["resets_at"] = to_iso(event.resets_at)
    return record


def usage_record(usage: Usage | None) -> dict[str, int] | None:
    """Every count, zeros too; None when nothing was measured."""
    return None if usage is None else usage.counts()


def decision_page(decision: Decision, full: FullInput, events: Sequence[ApiCall | Error]) -> Iterator[Text]:
    """The whole story of one decision."""
    yield Text(f"decision {decision.decision_id}", "bold")
    yield from _facts(decision)
    yield from _prompt(full)
    yield from _section("reasoning", decision.reasoning_chain)
    yield from _section("answer", decision.answer)
    yield from _actions(decision)
    calls = [event for event in events if isinstance(event, ApiCall)]
    if calls:
        yield Text("\napi calls", "bold")
        yield from (Text(f"  {call_line(call)}", "" if 200 <= call.response_code < 300 else "yellow") for call in calls)
    errors = [event for event in events if isinstance(event, Error)]
    if errors:
        yield Text("\nerrors", "bold")
    for error in errors:
        yield from error_lines(error)


def call_line(call: ApiCall) -> str:
    """One attempt in a line."""
    answer = f"{call.response_code}" if call.response_code else "no answer"
    cost = "$0.00" if call.cost is None and call.cost_source == "free" else usd(call.cost)
    return f"{call.attempt}. {one_line(call.target_api)}: {answer}, {duration(int(call.latency_ms * 1e6))}, {cost}"


def error_lines(error: Error) -> Iterator[Text]:
    """An error, what was done about it, and its trace."""
    recovery = "nothing done about it" if error.recovery_action == "none" else error.recovery_action
    words = f"  {local_time(error.timestamp, '%H:%M:%S')} {error.severity} {error.error_type}: {one_line(error.message)} ({recovery})"
    yield Text(words, _SEVERITY_STYLE.get(error.severity, ""))
    if error.full_traceback:
        yield Text(_indented(error.full_traceback, 4), "dim")


def refusal_line(refusal: LimitRefusal) -> str:
    """What a limit denied, in its own unit."""
    spent, reserved = (to_usd(n) if refusal.unit == "usd" else str(n) for n in (refusal.spent, refusal.reserved))
    return f"refused by the limit {one_line(refusal.limit)}: {spent} spent, {reserved} reserved"


def _facts(decision: Decision) -> Iterator[Text]:
    usage = decision.usage
    first_token = "" if decision.first_token_ns is None else f", first token after {duration(decision.first_token_ns)}"
    confidence = UNKNOWN if decision.confidence_score is None else f"{decision.confidence_score:.3f} ({decision.confidence_source})"
    counts = UNKNOWN
    if usage is not None:
        counts = f"{usage.input} in ({usage.cached_input} cached), {usage.output} out ({usage.reasoning} reasoning)"
    facts = {
        "time": f"{local_time(decision.timestamp, '%Y-%m-%d %H:%M:%S %z')} ({to_iso(decision.timestamp)})",
        "agent": f"{decision.agent}, release {decision.release}",
        "run": decision.run,
        "user": decision.user_id,
        "interaction": decision.interaction,
        "model": f"{served(decision)} ({decision.format})",
        "action": decision.chosen_action,
        "finish": decision.finish_reason,
        "confidence": confidence,
        "tokens": counts,
        "cost": usd(decision.cost) + {"bound": " (upper bound: no usage was reported)"}.get(decision.cost_source, ""),
        "latency": f"{duration(decision.latency_ns)}{first_token}",
        "attempts": str(decision.attempts),
        "flags": ", ".join(flags(decision)),
    }
    for name, value in facts.items():
        if value:
            yield Text(f"  {name:<12} {one_line(value)}")


def _prompt(full: FullInput) -> Iterator[Text]:
    yield Text("\nprompt", "bold")
    for gap in full.missing:
        yield Text(f"  not on record: {gap}", "yellow")
    if full.system is not None:
        yield from _said("system", _readable(_value(full.system)))
    for raw in full.messages:
        message = _value(raw)
        who = message.get("role") or message.get("type") if isinstance(message, dict) else None
        yield from _said(str(who or "message"), _message(message))
    if full.tools is not None:
        yield from _said("tools", ", ".join(_tool_names(_value(full.tools))))


def _actions(decision: Decision) -> Iterator[Text]:
    calls = _value(decision.tool_calls)
    if not isinstance(calls, list) or not calls:
        return
    yield Text("\ntool calls", "bold")
    for call in calls:
        yield Text(f"  {_called(call) if isinstance(call, dict) else _compact(call)}")


def _section(title: str, text: str) -> Iterator[Text]:
    if text:
        yield Text(f"\n{title}", "bold")
        yield Text(_indented(text, 2))


def _said(who: str, text: str) -> Iterator[Text]:
    yield Text(f"  {one_line(who)}", "cyan")
    if text:
        yield Text(_indented(text, 4))


def _message(message: Any) -> str:
    """A message of any wire format as text: what was said, then the tools that were called."""
    if not isinstance(message, dict):
        return _readable(message)
    if message.get("type") in ("function_call", "custom_tool_call"):
        return f"→ {_called(message)}"
    parts = [_readable(message[name]) for name in ("content", "output", "summary") if message.get(name)]
    calls = message.get("tool_calls")
    parts += [f"→ {_called(call)}" for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    return "\n".join(parts)


def _readable(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_readable(part) for part in content)
    if isinstance(content, dict):
        if content.get("type") == "tool_use":
            return f"→ {_called(content)}"
        for name in _PLAIN_PARTS:
            if isinstance(content.get(name), str | list):
                return _readable(content[name])
    return _compact(content)


def _called(call: dict[str, Any]) -> str:
    """`name({"arguments": …})` of a tool call as any format writes it."""
    function = call.get("function")
    inner = function if isinstance(function, dict) else call
    arguments = next((inner[name] for name in ("arguments", "input") if name in inner), "")
    return f"{inner.get('name', 'tool')}({arguments if isinstance(arguments, str) else _compact(arguments)})"


def _tool_names(tools: Any) -> Iterator[str]:
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict):
            function = tool.get("function")
            named = function if isinstance(function, dict) else tool
            yield str(named.get("name") or named.get("type") or "tool")


def _value(raw: Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return bytes(raw).decode("utf-8", "replace")


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _indented(text: str, columns: int) -> str:
    return "\n".join(" " * columns + line for line in text.replace("\r\n", "\n").split("\n"))
