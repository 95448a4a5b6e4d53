"""What came back of an attempt, as the guard reads it."""

from holdfast.errors import GarbageReceived, MalformedAnswer
from holdfast.execution.attempt import AttemptResult
from holdfast.gateway.routing import Destination
from holdfast.wire.call import Answer, WireFormat

_UNREAD = Answer()


def answer_of(result: AttemptResult, wire_format: WireFormat | None) -> Answer | None:
    """What was answered, as far as it came; None for error answers and for what is not an answer, which becomes the result's error."""
    if result.stream is not None:
        return result.stream.answer()
    if wire_format is None and result.error is None and 200 <= result.status < 400:
        return _UNREAD
    if wire_format is None or result.error is not None or not 200 <= result.status < 300:
        return None
    try:
        return wire_format.answer(result.body)
    except MalformedAnswer as error:
        result.error = GarbageReceived(str(error))
        return None


def without_secret(body: bytes, destination: Destination) -> bytes:
    """Some servers repeat the key that they reject; neither the agent nor the record may learn it."""
    for secret in destination.secrets:
        body = body.replace(secret, b"***")
    return body
