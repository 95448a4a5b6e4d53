"""Items of OpenAI's Responses, input and output alike: what each says, which turn it is, and what its media cost at most."""

import msgspec
from msgspec import Raw, Struct

from holdfast.wire import canonical
from holdfast.wire.call import ToolCall, Turn
from holdfast.wire.media import audio_tokens, document_tokens, image_tokens
from holdfast.wire.request_body import NULL, checked


class Item(Struct, gc=False):
    """Fields are read only where the type says what they are: an unknown type may use the same names otherwise."""

    type: str | None = None
    role: str | None = None
    content: Raw = NULL
    name: Raw = NULL
    call_id: Raw = NULL
    arguments: Raw = NULL
    input: Raw = NULL
    output: Raw = NULL
    action: Raw = NULL
    operation: Raw = NULL
    summary: Raw = NULL
    tools: Raw = NULL
    encrypted_content: Raw = NULL

    @property
    def kind(self) -> str:
        """Items may leave their type out: a message has a role, anything else only refers to an item that the provider keeps."""
        return self.type or ("message" if self.role is not None else "item_reference")


class Part(Struct, gc=False):
    """A part of an item's content."""

    type: str | None = None
    text: Raw = NULL
    refusal: Raw = NULL
    image_url: Raw = NULL
    file_id: Raw = NULL
    file_data: Raw = NULL
    file_url: Raw = NULL
    detail: Raw = NULL
    logprobs: Raw = NULL
    input_audio: Raw = NULL


class _Audio(Struct, gc=False):
    data: str = ""
    format: str | None = None


_read_audio = msgspec.json.Decoder(_Audio | None).decode
_read_text = msgspec.json.Decoder(str | None).decode
_read_content = msgspec.json.Decoder(str | list[Part] | None).decode

_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_MEDIA = frozenset({"input_image", "input_file", "computer_screenshot"})
_NAMED_CALLS = frozenset({"function_call", "custom_tool_call", "mcp_call"})

_KEPT_REASONING = 128_000
"""Tokens that a reasoning item may stand for whose content the provider keeps: the longest output of any model."""
_WINDOW = 1_000_000
"""The longest input of any model: no more of what is kept can be read."""


class ItemReader:
    """Reads items one by one. model: whose way of counting pictures applies.

    media_tokens: what media, and reasoning that the provider keeps, may cost beyond the bytes they have in the body; below zero for large
    inline ones. pictures: among them.
    unbounded: the first content whose size the request does not tell.
    """

    def __init__(self, model: str = "") -> None:
        self.media_tokens = 0
        self.pictures = 0
        self.unbounded = ""
        self._model = model
        self._kept = 0

    def turn(self, item: Item, at: str = "") -> Turn:
        """The turn of an item: ids, status, phase and namespaces do not count; reasoning has no digest, since agents may drop it.

        Of items that nobody here knows only the type counts. Raises MalformedRequest with `at` as the field.
        """
        kind = item.kind
        if kind == "message":
            return self._said(item.role or "assistant", item.content, f"{at}.content")
        if kind == "reasoning":
            if item.encrypted_content == NULL and item.content == NULL:
                self.media_tokens += _KEPT_REASONING if self._kept < _WINDOW else 0
                self._kept += _KEPT_REASONING
            return Turn(kind, b"")
        if (call := tool_call(item, at)) is not None:
            return canonical.turn("assistant", calls=((call.name, call.arguments),))
        if kind.endswith("_output"):
            return self._result(item.output, f"{at}.output")
        if kind == "item_reference":
            self._no_bound("items that the provider keeps have a length of their own")
        return canonical.turn(item.role or kind, media=(kind.encode(),))

    def _said(self, role: str, raw: Raw, at: str) -> Turn:
        texts: list[str] = []
        media: list[bytes] = []
        for part in content(raw, at):
            if part.type in _TEXTS:
                texts.append(text(part.text, at))
            elif part.type == "refusal":
                texts.append(text(part.refusal, at))
            else:
                media.append(self._medium(part, at))
        return canonical.turn(role, texts, (), media)

    def _result(self, raw: Raw, at: str) -> Turn:
        """Of function and custom tools: text or parts; of tools that OpenAI defines (shell, screenshots): objects."""
        output = bytes(raw)
        if output.startswith((b'"', b"[")):
            return self._said("tool", raw, at)
        if output.startswith(b"{"):
            return self._said("tool", Raw(b"[%b]" % output), at)
        return canonical.turn("tool")

    def _medium(self, part: Part, at: str) -> bytes:
        """What stands for the part in the turn; adds what it may cost."""
        if part.type == "input_audio":
            return self._recording(part, at)
        if part.type not in _MEDIA:
            return (part.type or "").encode()
        inline = max(len(part.image_url), len(part.file_data)) if _is_inline(part) else 0
        if part.type == "input_file":
            if not inline:
                self._no_bound("a file that is not part of the request has a length of its own")
            self.media_tokens += document_tokens(inline) - inline
        else:
            self.pictures += 1
            self.media_tokens += image_tokens(self._model, text(part.detail, at)) - inline
        return bytes(next((raw for raw in (part.image_url, part.file_data, part.file_url, part.file_id) if raw != NULL), b""))

    def _recording(self, part: Part, at: str) -> bytes:
        audio = checked(_read_audio, part.input_audio, at) or _Audio()
        self.media_tokens += audio_tokens(audio.data, audio.format or "") - len(audio.data)
        return audio.data.encode()

    def _no_bound(self, reason: str) -> None:
        self.unbounded = self.unbounded or reason


def content(raw: Raw, at: str = "") -> list[Part]:
    """The parts of a message or an output; plain text is one of them."""
    read = checked(_read_content, raw, at)
    return [Part("input_text", raw)] if isinstance(read, str) else read or []


def text(raw: Raw, at: str = "") -> str:
    return checked(_read_text, raw, at) or ""


def tool_call(item: Item, at: str = "") -> ToolCall | None:
    """The call of a tool that the agent runs, or None. Of tools that OpenAI defines the type names the tool."""
    match item.kind:
        case "function_call":
            return ToolCall(text(item.name, at), text(item.arguments, at), text(item.call_id, at))
        case "custom_tool_call":
            return ToolCall(text(item.name, at), text(item.input, at), text(item.call_id, at))
        case "local_shell_call" | "shell_call" | "computer_call" as kind:
            arguments = item.action
        case "apply_patch_call" as kind:
            arguments = item.operation
        case "tool_search_call" as kind:
            arguments = item.arguments
        case _:
            return None
    return ToolCall(kind.removesuffix("_call"), _without_nulls(arguments, at), text(item.call_id, at))


def called_tool(item: Item) -> str:
    """The name of the tool that an item calls, whoever runs it; "" for an item that calls none."""
    kind = item.kind
    if not kind.endswith("_call"):
        return ""
    return text(item.name) if kind in _NAMED_CALLS else kind.removesuffix("_call")


def _is_inline(part: Part) -> bool:
    return part.file_data != NULL or bytes(part.image_url).startswith(b'"data:')


_read_object = msgspec.json.Decoder(dict[str, Raw] | list[Raw] | str | None).decode


def _without_nulls(raw: Raw, at: str) -> str:
    """SDKs write out the optional fields that the API left out."""
    read = checked(_read_object, raw, at)
    if isinstance(read, dict):
        return msgspec.json.encode({name: value for name, value in read.items() if value != NULL}).decode()
    return bytes(raw).decode()
