"""Anthropic's token counting: `POST /v1/messages/count_tokens`, the request of a message without an answer to it."""

import msgspec
from msgspec import Struct

from holdfast.errors import MalformedAnswer
from holdfast.wire.anthropic_messages import AnthropicMessages
from holdfast.wire.call import Answer, Call, Rewrite


class _Counted(Struct, gc=False):
    input_tokens: int


_read_answer = msgspec.json.Decoder(_Counted).decode


class AnthropicCountTokens(AnthropicMessages):
    """Implements `WireFormat`. Nothing is generated or billed: calls have no history, no bound and no usage."""

    name = "anthropic-count-tokens"

    def parse(self, body: bytes) -> Call:
        call = super().parse(body)
        return Call(model=call.model, params=call.params, system=call.system, tools=call.tools, user=call.user, generates=False)

    def answer(self, body: bytes) -> Answer:
        try:
            _read_answer(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise MalformedAnswer(f"not a token count: {error}") from None
        return Answer()

    def rewrite(self, body: bytes, call: Call, rewrite: Rewrite) -> bytes:
        return super().rewrite(body, call, Rewrite(model=rewrite.model))

    def canned(self, call: Call, text: str, response_id: str, created_s: int) -> None:
        """A count is not invented."""


FORMAT = AnthropicCountTokens()
