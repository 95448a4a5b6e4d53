"""The loop guard at work: the call of an agent that goes round in circles is warned of, then refused with what to do instead."""

from holdfast.gateway.arrival import Arrival
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import Origin
from holdfast.policy.loop_guard import Loop, LoopKind
from holdfast.wire.call import Answer, Refusal
from holdfast.wire.steps import forbids_tools

KIND = "loop_guard"
"""Of its refusals."""

_WAYS_OUT = (
    "Change the arguments, use another tool, or give the final answer with what is known (a call with tool_choice none is let through), "
    "or ask the user: the call passes when a message of the user's, or a result that is new, ends the history."
)
_INSTEAD: dict[LoopKind, str] = {
    "same_call": f"Calling it again will bring the same. {_WAYS_OUT}",
    "cycle": f"Going round once more will bring the same. {_WAYS_OUT}",
    "no_new_result": f"All of these results are in the history already. {_WAYS_OUT}",
    "same_result": f"Other arguments have not brought another result. {_WAYS_OUT}",
    "max_turns": "Give the final answer with what is known (a call with tool_choice none is let through), or ask the user: the count "
    "begins anew with a message of the user's.",
    "growth": f"Shorten the history: the same is paid for with every call. {_WAYS_OUT}",
}


def checked(parts: Parts, arrival: Arrival) -> Refusal | None:
    """The refusal of a call that goes on with a loop; a warning, where one is due, is put on record."""
    entry = arrival.entry
    options, form, call = entry.agent.loop_guard, entry.endpoint.format, entry.call
    if options is None or form is None or not call.generates:
        return None
    loop = parts.loop_guard.check(_key(entry.origin), form.name, call, options, parts.clock.monotonic_ns())
    if loop is None:
        return None
    if not loop.stop:
        arrival.record.loop(f"{_described(loop)} It is stopped at {loop.limit}{_unit(loop)}.", stopped=False)
        return None
    return None if forbids_tools(call) else _refusal(loop)


def answered(parts: Parts, origin: Origin, answer: Answer) -> None:
    """An answer that later calls may continue without sending it back."""
    parts.loop_guard.answered(_key(origin), answer.tool_calls)


def _key(origin: Origin) -> str:
    return f"{origin.agent}/{origin.interaction}"


def _refusal(loop: Loop) -> Refusal:
    """403: the agent must do something else; sending the same again is no use."""
    return Refusal(
        status=403,
        kind=KIND,
        message=f"Refused by Holdfast, nothing was spent: a loop. {_described(loop)} {_INSTEAD[loop.kind]}",
        details={
            "check": loop.kind,
            "tools": ", ".join(loop.tools),
            "count": loop.count,
            "limit": loop.limit,
            "since_turn": loop.since,
        },
    )


def _described(loop: Loop) -> str:
    """One sentence: which tool, how often, since when."""
    tools, latest, since = _tools(loop), ", ".join(loop.tools), f"since turn {loop.since} of this conversation"
    match loop.kind:
        case "same_call":
            return f"{tools} called {loop.count} times in a row with the same arguments and the same result, {since}."
        case "cycle":
            return f"{tools} called in turn, {loop.count} times around with the same arguments and the same results, {since}."
        case "no_new_result":
            return f"{loop.count} rounds of calls in a row have brought no new result (the latest: {latest}), {since}."
        case "same_result":
            return f"{tools} called {loop.count} times in a row without a new result, whatever the arguments, {since}."
        case "max_turns":
            return f"The model has answered {loop.count} times without a word of the user, {since}."
        case "growth":
            return f"The input has grown by {loop.count} percent without a new result or a new word (the latest: {latest}), {since}."


def _tools(loop: Loop) -> str:
    names = ", ".join(loop.tools)
    return f"The tools {names} were" if len(loop.tools) > 1 or "+" in names else f"The tool {names} was"


def _unit(loop: Loop) -> str:
    return " percent" if loop.kind == "growth" else ""
