"""A call whose target speaks another wire format than its agent: what is sent there, and what is read of the way back."""

from msgspec import structs

from holdfast.gateway.endpoints import GENERATING
from holdfast.gateway.gate import Entry
from holdfast.gateway.routing import Destination
from holdfast.wire.call import Answer, StreamReader, WireFormat
from holdfast.wire.translation import StreamTranslator, Translation
from holdfast.wire.translation.between import between


def translated(entry: Entry, body: bytes, destination: Destination) -> tuple[Entry, bytes, Translation]:
    """The entry and the body as the destination's format has them; raises Untranslatable."""
    spoken = entry.endpoint.format
    assert spoken is not None
    translation = between(spoken.name, destination.format, destination.model)
    assert translation is not None
    endpoint = GENERATING[destination.format]
    assert endpoint.format is not None
    sent = translation.request(body)
    return structs.replace(entry, call=endpoint.format.parse(sent), endpoint=endpoint), sent, translation


def whole_answer(body: bytes, heard: Answer, translation: Translation, spoken: WireFormat) -> tuple[bytes, Answer]:
    """A whole answer for the caller, and how its format reads it; the usage is what the target reported. Raises MalformedAnswer."""
    said = translation.answer(body)
    answer = spoken.answer(said)
    answer.usage = heard.usage
    return said, answer


class TranslatedStream:
    """Reads a stream in the target's format and passes it on in the caller's; implements `StreamReader`."""

    def __init__(self, reader: StreamReader, translator: StreamTranslator, caller: StreamReader) -> None:
        self._reader = reader
        self._translator = translator
        self._caller = caller

    @property
    def committed(self) -> bool:
        return self._reader.committed

    @property
    def ended(self) -> bool:
        return self._reader.ended

    @property
    def error(self) -> bytes | None:
        """The target's, or what the caller is told where its stream could not be translated."""
        return self._reader.error or self._caller.error

    @property
    def generated_bytes(self) -> int:
        return self._reader.generated_bytes

    @property
    def tools(self) -> set[str]:
        return self._reader.tools

    def feed(self, data: bytes) -> bytes:
        self._reader.feed(data)
        return self._pass(self._translator.feed(data))

    def flush(self) -> bytes:
        self._reader.flush()
        return self._pass(self._translator.flush())

    def answer(self) -> Answer:
        answer, heard = self._caller.answer(), self._reader.answer()
        answer.usage, answer.complete = heard.usage, heard.complete and answer.complete
        return answer

    def heard(self) -> Answer:
        """As the target's own format reads it."""
        return self._reader.answer()

    def _pass(self, data: bytes) -> bytes:
        self._caller.feed(data)
        return data
