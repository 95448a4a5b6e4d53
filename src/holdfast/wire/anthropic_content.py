"""Content of Anthropic messages: what the blocks of a message say, which turn they are, and what their media cost at most."""

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from holdfast.wire import canonical
from holdfast.wire.call import Turn
from holdfast.wire.media import document_tokens, image_tokens
from holdfast.wire.request_body import checked


class Block(Struct, gc=False):
    """A content block. Fields are read only where the type says what they are: an unknown type may use the same names otherwise."""

    type: str
    text: Raw = Raw()
    thinking: Raw = Raw()
    id: Raw = Raw()
    name: Raw = Raw()
    input: Raw = Raw()
    content: Raw = Raw()
    source: Raw = Raw()


Content = str | list[Block] | None

PROVIDERS_CALLS = frozenset({"server_tool_use", "mcp_tool_use"})
"""Types of blocks in which the model calls a tool that the provider runs."""


class _Source(Struct, gc=False):
    type: str = ""
    data: Raw = Raw()
    url: Raw = Raw()
    file_id: Raw = Raw()
    content: Raw = Raw()


_read_text = msgspec.json.Decoder(str | None).decode
_read_content = msgspec.json.Decoder(Content).decode
_read_source = msgspec.json.Decoder(_Source).decode

_SILENT = frozenset({"thinking", "redacted_thinking"})
_DEEPEST = 3  # a document inside a tool result has blocks of its own; the API knows nothing deeper


class ContentReader:
    """Reads messages one by one.

    media_tokens: what their media may cost beyond the bytes they have in the body; below zero for large inline ones.
    unbounded: the first content whose size the request does not tell.
    """

    def __init__(self) -> None:
        self.media_tokens = 0
        self.unbounded = ""
        self._texts: list[str] = []
        self._calls: list[tuple[str, bytes]] = []
        self._media: list[bytes] = []
        self._at = ""

    def turn(self, role: str, content: Content, at: str = "") -> Turn:
        """The turn of a message: cache markers, ids and thinking do not count, of blocks that nobody here knows only the type.

        Raises MalformedRequest with `at` as the field.
        """
        if isinstance(content, str):
            return canonical.turn(role, (content,))
        self._texts, self._calls, self._media, self._at = [], [], [], at
        self._blocks(content or (), 0)
        return canonical.turn(role, self._texts, self._calls, self._media)

    def _blocks(self, blocks: Sequence[Block], depth: int) -> None:
        for block in blocks:
            match block.type:
                case "text":
                    self._texts.append(text(block.text, self._at))
                case "tool_use":
                    self._calls.append((text(block.name, self._at), bytes(block.input) or b"{}"))
                case "tool_result" if depth < _DEEPEST:
                    self._nested(block.content, depth)
                case "image" | "document" if depth < _DEEPEST:
                    self._medium(block, depth)
                case kind if kind not in _SILENT:
                    self._media.append(kind.encode())
                    if kind == "container_upload":
                        self._no_bound("a file that the provider keeps")

    def _nested(self, raw: Raw, depth: int) -> None:
        content = checked(_read_content, raw, self._at) if raw else None
        if isinstance(content, str):
            self._texts.append(content)
        else:
            self._blocks(content or (), depth + 1)

    def _medium(self, block: Block, depth: int) -> None:
        source = checked(_read_source, block.source, self._at) if block.source else _Source()
        if source.type in ("text", "content"):
            self._media.append(bytes(source.data))
            self._nested(source.content, depth)
            return
        self._media.append(bytes(source.data or source.url or source.file_id))
        if block.type == "image":
            self.media_tokens += image_tokens() - len(source.data)
        elif source.type == "base64":
            self.media_tokens += document_tokens(len(source.data)) - len(source.data)
        else:
            self._no_bound("a document that is not part of the request")

    def _no_bound(self, reason: str) -> None:
        self.unbounded = self.unbounded or reason


def text(raw: Raw, at: str = "") -> str:
    """The text of a field; null and absent are empty. Raises MalformedRequest with `at` as the field."""
    return checked(_read_text, raw, at) or "" if raw else ""
