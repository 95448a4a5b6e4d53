"""What an agent did, step by step, read from the history that it resends: who spoke, which tools were called, what they gave back.

One file per format. Only new messages are read, and only by those who ask (the loop guard): the way of a call pays nothing for it.
"""

from collections.abc import Callable

from msgspec import Raw

from holdfast.wire.call import Call
from holdfast.wire.steps import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.steps.step import Step, called

__all__ = ["READERS", "Reader", "Step", "called", "forbids_tools"]

Reader = Callable[[Raw, bytes], list[Step]]
"""From a message as raw JSON, and the digest of its turn, to what it holds. Raises nothing for a message that the format itself could read;
of what it does not know it makes no steps."""

READERS: dict[str, Reader] = {
    "openai-chat": openai_chat.steps,
    "openai-responses": openai_responses.steps,
    "anthropic-messages": anthropic_messages.steps,
}
"""By the name of the format."""

_NO_TOOLS = (b'"tool_choice":"none"', b'"tool_choice":{"type":"none"')


def forbids_tools(call: Call) -> bool:
    """Whether `call` says that its answer must not call any tool."""
    params = bytes(call.params).replace(b" ", b"")
    return any(forbidden in params for forbidden in _NO_TOOLS)
