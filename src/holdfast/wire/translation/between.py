"""The translation between any two of the formats that generate text."""

from holdfast.wire.translation import (
    StreamTranslator,
    Translation,
    anthropic_answer,
    anthropic_reader,
    anthropic_writer,
    chat_answer,
    chat_reader,
    chat_writer,
    responses_answer,
    responses_reader,
    responses_writer,
)
from holdfast.wire.translation.errors import write_error
from holdfast.wire.translation.neutral import FormatName
from holdfast.wire.translation.streams import Translator

FORMATS: tuple[FormatName, ...] = ("openai-chat", "openai-responses", "anthropic-messages")

_READ_REQUEST = {
    "openai-chat": chat_reader.read_request,
    "openai-responses": responses_reader.read_request,
    "anthropic-messages": anthropic_reader.read_request,
}
_READ_ANSWER = {
    "openai-chat": chat_answer.read_answer,
    "openai-responses": responses_answer.read_answer,
    "anthropic-messages": anthropic_answer.read_answer,
}
_WRITE_ANSWER = {
    "openai-chat": chat_answer.write_answer,
    "openai-responses": responses_answer.write_answer,
    "anthropic-messages": anthropic_answer.write_answer,
}


def between(caller: str, target: str, model: str = "") -> Translation | None:
    """The translation of calls in the format `caller` for targets that speak `target`, by the formats' names; None where there is none:
    between equal formats, and for what is not a conversation (embeddings, token counting).

    model: the target's model, where it is known; Claude models before 4.6 are asked to think in another way than later ones.
    """
    names = {name: name for name in FORMATS}
    if caller not in names or target not in names or caller == target:
        return None
    return _Between(names[caller], names[target], model)


class _Between:
    """Implements `Translation`."""

    def __init__(self, caller: FormatName, target: FormatName, model: str) -> None:
        self._caller: FormatName = caller
        self._target: FormatName = target
        self._model = model

    def request(self, body: bytes) -> bytes:
        request = _READ_REQUEST[self._caller](body, self._target)
        if self._target == "openai-chat":
            return chat_writer.write_request(request)
        if self._target == "openai-responses":
            return responses_writer.write_request(request)
        return anthropic_writer.write_request(request, self._model)

    def answer(self, body: bytes) -> bytes:
        return _WRITE_ANSWER[self._caller](_READ_ANSWER[self._target](body))

    def error(self, status: int, body: bytes) -> bytes:
        return write_error(self._caller, status, body)

    def stream(self, request: bytes) -> StreamTranslator:
        return Translator(self._caller, self._target, request)
