"""Answers that say that this model will not serve the call although another may: prompt too long, content refused."""

import re

from holdfast.wire.call import Answer

_CONTEXT = re.compile(
    rb"context_length_exceeded|maximum context length|context window|prompt is too long|input is too long|request_too_large"
    rb"|exceeds? the (model's )?(maximum )?context|too many (input )?tokens",
    re.IGNORECASE,
)
"""In the words of OpenAI, Anthropic, vLLM, Ollama and the resellers."""

_CONTENT = re.compile(rb'"(code|type)"\s*:\s*"(content_filter|content_policy_violation|responsible_ai_policy_violation)"')
_FILTERED = frozenset({"content_filter", "refusal"})
_LOOKED_AT = 16 * 1024
"""Bytes of an error answer; what an upstream says it says in the first lines."""


def too_long(status: int, body: bytes) -> bool:
    """Whether an error answer says that the prompt does not fit into the model's context."""
    return status in (400, 413, 422) and _CONTEXT.search(body, 0, _LOOKED_AT) is not None


def filtered(status: int, body: bytes, answer: Answer | None) -> bool:
    """Whether the model, or a filter before or behind it, refused for the content's sake."""
    if answer is not None:
        return bool(answer.refusal) or answer.finish_reason in _FILTERED
    return status in (400, 403) and _CONTENT.search(body, 0, _LOOKED_AT) is not None
