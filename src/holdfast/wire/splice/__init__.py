"""Going on with a streamed answer that broke off: another attempt is told what was already said, and its stream is joined to the first.

What the agent reads is one stream: one id, one run of indices and sequence numbers, one end, which is the second's own.
"""

from typing import Protocol

from holdfast.wire.splice.anthropic_messages import MessagesSplice
from holdfast.wire.splice.openai_chat import ChatSplice
from holdfast.wire.splice.openai_responses import ResponsesSplice

__all__ = ["Splice", "splice"]


class Splice(Protocol):
    """One streamed answer in the agent's format, made of the streams of several attempts.

    said: its text so far. can_continue: nothing but text and reasoning has come of it, and no end: a tool call that has begun cannot be
    gone on with by another model.
    """

    said: str

    @property
    def can_continue(self) -> bool: ...

    def observe(self, data: bytes) -> None:
        """Look at whole events of the first stream, which pass as they are."""

    def request(self) -> bytes:
        """The body that asks another attempt to go on: the agent's request, what was said since, and what is wanted."""

    def resume(self, data: bytes) -> bytes:
        """What the agent is to get for whole events of a later stream, in its own format."""


def splice(format_name: str, body: bytes) -> Splice | None:
    """For the answer to a request `body` in the format of that name; None where answers cannot be continued."""
    kinds: dict[str, type[ChatSplice | MessagesSplice | ResponsesSplice]] = {
        "openai-chat": ChatSplice,
        "anthropic-messages": MessagesSplice,
        "openai-responses": ResponsesSplice,
    }
    kind = kinds.get(format_name)
    return None if kind is None else kind(body)
