"""What came back of an attempt, as the guard reads it."""

from holdfast.errors import GarbageReceived, MalformedAnswer
from holdfast.execution.attempt import AttemptResult
from holdfast.gateway.asked import Asked
from holdfast.gateway.routing import Destination
from holdfast.gateway.translated import TranslatedStream, whole_answer
from holdfast.wire.call import Answer

_UNREAD = Answer()
_NONE = (None, None)


def answers_of(result: AttemptResult, asked: Asked) -> tuple[Answer | None, Answer | None]:
    """What was answered, as far as it came: as the target's format reads it, and as the caller's does, whose body the result has then.

    None for error answers and for what is not an answer, which becomes the result's error.
    """
    wire_format, stream = asked.entry.endpoint.format, result.stream
    if stream is not None:
        answer = stream.answer()
        return stream.heard() if isinstance(stream, TranslatedStream) else answer, answer
    if wire_format is None:
        answered = result.error is None and 200 <= result.status < 400
        return (_UNREAD, _UNREAD) if answered else _NONE
    if result.error is not None:
        return _NONE
    try:
        if 200 <= result.status < 300:
            return _whole(result, asked)
        if asked.translation is not None and result.status >= 400:
            result.body = asked.translation.error(result.status, result.body)
    except MalformedAnswer as error:
        result.error = GarbageReceived(str(error))
    return _NONE


def _whole(result: AttemptResult, asked: Asked) -> tuple[Answer, Answer]:
    wire_format = asked.entry.endpoint.format
    assert wire_format is not None
    heard = wire_format.answer(result.body)
    if asked.translation is None:
        return heard, heard
    assert asked.spoken is not None
    result.body, answer = whole_answer(result.body, heard, asked.translation, asked.spoken)
    return heard, answer


def without_secret(body: bytes, destination: Destination) -> bytes:
    """Some servers repeat the key that they reject; neither the agent nor the record may learn it."""
    for secret in destination.secrets:
        body = body.replace(secret, b"***")
    return body
