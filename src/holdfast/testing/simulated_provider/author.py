"""Writes the simulated model's answers: the same words for the same prompt, always."""

from collections.abc import Callable
from zlib import crc32

import msgspec

from holdfast.testing.simulated_provider.answer import Answer, ToolUse, filler
from holdfast.testing.simulated_provider.behaviour import Behaviour, Manner
from holdfast.testing.simulated_provider.prompt import OfferedTool, Prompt, count
from holdfast.testing.simulated_provider.sample import sample_json

_THOUGHT = "The question is clear; a short answer will do."


def write(prompt: Prompt, behaviour: Behaviour) -> Answer:
    """The whole answer, without a bound on its length."""
    answer = _MANNERS[behaviour.says](prompt, behaviour)
    if not (answer.calls or answer.refused or answer.filtered):
        if prompt.must_call:
            answer = Answer(calls=_forced(prompt), reasoning=answer.reasoning)
        elif prompt.schema is not None:
            answer = Answer(text=sample_json(prompt.schema), reasoning=answer.reasoning)
    if prompt.reasoning and not answer.reasoning:
        answer = msgspec.structs.replace(answer, reasoning=_THOUGHT, hidden=prompt.hidden)
    return answer


def _ok(prompt: Prompt, behaviour: Behaviour) -> Answer:
    digest = crc32(prompt.last_text.encode("utf-8", "surrogatepass"))
    return Answer(text=f"Understood: {count(prompt.last_text)} tokens, checksum {digest:08x}.")


def _echo(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(text=prompt.last_text)


def _filler(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(text=filler(behaviour.tokens))


def _tool(prompt: Prompt, behaviour: Behaviour) -> Answer:
    if prompt.has_tool_result or not prompt.tools:
        return _ok(prompt, behaviour)
    return Answer(calls=(_use(prompt.tools[0]),))


def _tools(prompt: Prompt, behaviour: Behaviour) -> Answer:
    if prompt.has_tool_result or not prompt.tools:
        return _ok(prompt, behaviour)
    called = (_use(prompt.tools[0]), _use(prompt.tools[min(1, len(prompt.tools) - 1)]))
    return Answer(calls=called if prompt.parallel else called[:1])


def _loop(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(calls=(_use(prompt.tools[0]),)) if prompt.tools else _ok(prompt, behaviour)


def _refuse(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(text="I'm sorry, I can't help with that.", refused=True)


def _filtered(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(text=filler(behaviour.tokens), filtered=True)


def _reasoning(prompt: Prompt, behaviour: Behaviour) -> Answer:
    return Answer(text=_ok(prompt, behaviour).text, reasoning=_THOUGHT)


def _forced(prompt: Prompt) -> tuple[ToolUse, ...]:
    return tuple(_use(tool) for tool in prompt.tools if prompt.must_call in {"*", tool.name})[:1]


def _use(tool: OfferedTool) -> ToolUse:
    arguments = "sample" if tool.custom else sample_json(tool.schema or {"type": "object"})
    return ToolUse(tool.name, arguments, tool.custom, tool.namespace)


_MANNERS: dict[Manner, Callable[[Prompt, Behaviour], Answer]] = {
    "ok": _ok,
    "echo": _echo,
    "filler": _filler,
    "tool": _tool,
    "tools": _tools,
    "loop": _loop,
    "refuse": _refuse,
    "reasoning": _reasoning,
    "filtered": _filtered,
}
