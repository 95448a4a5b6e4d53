"""Between wire formats: a call in one that is served by a target that speaks another, its answer or stream on the way back."""

from typing import Protocol

from holdfast.errors import HoldfastError


class Untranslatable(HoldfastError):  # noqa: N818 - says what is wrong with the request
    """`param` names the field, in the caller's terms, that the target's format has no place for; nothing is dropped in silence."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class StreamTranslator(Protocol):
    """Turns the events of one streamed answer into the caller's format, as they come."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the target's stream, in any split; returns what the caller is to get for them. The target's error
        event becomes the caller's; its terminal marker becomes the caller's own, and no other end is ever made up."""

    def flush(self) -> bytes:
        """What is still to be said when the target's stream is over."""


class Translation(Protocol):
    """From the caller's format to a target's and back; holds no state. Models, bounds and streaming are as the caller set them: the
    target's own format rewrites them afterwards."""

    def request(self, body: bytes) -> bytes:
        """The body of a request in the target's format; raises Untranslatable, or MalformedRequest for what is none in the caller's."""

    def answer(self, body: bytes) -> bytes:
        """A whole 2xx answer of the target in the caller's format; raises MalformedAnswer."""

    def error(self, status: int, body: bytes) -> bytes:
        """The body of an error answer, whatever it is, in the caller's format; the target's own words are kept."""

    def stream(self, request: bytes) -> StreamTranslator:
        """For one streamed answer; request: the caller's own body."""
