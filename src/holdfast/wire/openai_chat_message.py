"""Messages of Chat Completions, as agents send them and as models answer: their text, tool calls and media, and the turn they are."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from holdfast.wire import canonical
from holdfast.wire.call import ToolCall, Turn
from holdfast.wire.media import audio_tokens, document_tokens, image_tokens

_TEXT_PARTS = frozenset({"", "text", "refusal", "thinking", "reasoning"})
_ROLES = {"developer": "system", "function": "tool"}


class Function(Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class CustomTool(Struct, gc=False):
    name: str | None = None
    input: str | None = None


class MessageToolCall(Struct, gc=False):
    id: str | None = None
    function: Function | None = None
    custom: CustomTool | None = None


class ImageURL(Struct, gc=False):
    url: str = ""
    detail: str | None = None


class InputAudio(Struct, gc=False):
    data: str = ""
    format: str | None = None


class File(Struct, gc=False):
    file_id: str | None = None
    file_data: str | None = None


class Part(Struct, gc=False):
    """A content part. `thinking` parts and the like have no field here: reasoning is no part of a turn."""

    type: str = ""
    text: str | None = None
    refusal: str | None = None
    image_url: ImageURL | str | None = None
    input_audio: InputAudio | None = None
    file: File | None = None


class Audio(Struct, gc=False):
    id: str | None = None


Content = str | list[Part | str] | None


class Said(Struct, gc=False):
    """What counts of a message; null, empty and absent are the same."""

    content: Content = None
    refusal: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    function_call: Function | None = None
    audio: Audio | None = None

    def is_plain(self) -> bool:
        """Whether it is its content and nothing else."""
        return not self.tool_calls and self.function_call is None and not self.refusal and self.audio is None

    def text(self) -> str:
        """What was said, content parts joined; without refusals."""
        return content_text(self.content)

    def refused(self) -> str:
        """The refusal, from the field or from content parts."""
        if self.refusal or type(self.content) is not list:
            return self.refusal or ""
        return "".join([part.refusal or "" for part in self.parts()])

    def calls(self) -> tuple[ToolCall, ...]:
        """Its tool calls, function and custom tools alike, then the one of the legacy `function_call` field."""
        if not self.tool_calls and self.function_call is None:
            return ()
        calls = [tool_call(call) for call in self.tool_calls or ()]
        if self.function_call is not None:
            calls.append(ToolCall(self.function_call.name or "", self.function_call.arguments or ""))
        return tuple(calls)

    def parts(self) -> Iterator[Part]:
        """The content parts that are objects."""
        if isinstance(self.content, list):
            for part in self.content:
                if isinstance(part, Part):
                    yield part


class Message(Said, kw_only=True, gc=False):
    """A message of a request."""

    role: str


def content_text(content: Content) -> str:
    if isinstance(content, str):
        return content
    if not content:
        return ""
    return "".join([part if isinstance(part, str) else part.text or "" for part in content])


def tool_call(call: MessageToolCall) -> ToolCall:
    if call.custom is not None:
        return ToolCall(call.custom.name or "", call.custom.input or "", call.id or "")
    function = call.function or Function()
    return ToolCall(function.name or "", function.arguments or "", call.id or "")


def turn(role: str, said: Said) -> Turn:
    """The turn of a message: `developer` is `system`, `function` is `tool`; ids, names and cache markers do not count."""
    role = _ROLES.get(role, role)
    if type(said.content) is str and said.is_plain():
        return canonical.plain_turn(role, said.content)
    calls = [(call.name, call.arguments) for call in said.calls()]
    return canonical.turn(role, (said.text(), said.refused()), calls, _media(said))


def _media(said: Said) -> list[bytes]:
    media = [reference for part in said.parts() if (reference := _reference(part))] if type(said.content) is list else []
    if said.audio is not None and said.audio.id:
        media.append(said.audio.id.encode("utf-8"))
    return media


def _reference(part: Part) -> bytes:
    if part.image_url is not None:
        url = part.image_url if isinstance(part.image_url, str) else part.image_url.url
        return url.encode("utf-8")
    if part.file is not None:
        return (part.file.file_id or part.file.file_data or "").encode("utf-8")
    if part.input_audio is not None:
        return part.input_audio.data.encode("utf-8")
    return b""


class Media(Struct, frozen=True):
    """What media add to the input bound that is taken from a body's bytes. unbounded: why they cannot be bounded, if so."""

    tokens: int = 0
    pictures: int = 0
    unbounded: str = ""


def media_bound(messages: Iterable[Message], model: str) -> Media:
    """Images, inline documents and recordings by `wire.media`, their inline bytes not counted; all other media, and what a provider keeps,
    have no size here."""
    tokens = pictures = 0
    for message in messages:
        if message.audio is not None:
            return Media(unbounded="an earlier audio answer is kept by the provider and has a length of its own")
        if type(message.content) is not list:
            continue
        for part in message.parts():
            bound = _part_tokens(part, model)
            if bound is None:
                return Media(unbounded=f"what {part.type!r} content costs cannot be bounded from the request")
            tokens += bound
            pictures += part.image_url is not None
    return Media(tokens, pictures)


def _part_tokens(part: Part, model: str) -> int | None:
    image, file = part.image_url, part.file
    if image is not None:
        url, detail = (image, "") if isinstance(image, str) else (image.url, image.detail or "")
        return image_tokens(model, detail) - len(url)
    if file is not None and file.file_data and not file.file_id:
        return document_tokens(len(file.file_data)) - len(file.file_data)
    if part.input_audio is not None and part.input_audio.data:
        return audio_tokens(part.input_audio.data, part.input_audio.format or "") - len(part.input_audio.data)
    return 0 if part.type in _TEXT_PARTS else None
