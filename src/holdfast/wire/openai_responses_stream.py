"""Reads the event stream of OpenAI's Responses.

The stream says everything up to four times: as deltas, as the done part, as the done item, in the final response. Read are the deltas,
until the item is done; then the item. Of the final response only what the items do not say.
"""

import msgspec
from msgspec import Raw, Struct

from holdfast.wire.call import Answer
from holdfast.wire.event_reader import EventReader
from holdfast.wire.openai_responses_answer import UNREADABLE, Response, answer, read_items
from holdfast.wire.openai_responses_item import Item, called_tool, text
from holdfast.wire.request_body import NULL
from holdfast.wire.sse import Event


class _Delta(Struct, gc=False):
    delta: str = ""
    output_index: int = 0
    logprobs: Raw = NULL


class _ItemEvent(Struct, gc=False):
    item: Item
    output_index: int = 0


class _ResponseEvent(Struct, gc=False):
    response: Response


class _Type(Struct, gc=False):
    type: str = ""


class _Open(Struct):
    """An item as far as it came, `field` being where its text belongs."""

    item: Item
    field: str
    pieces: list[str]


_read_delta = msgspec.json.Decoder(_Delta).decode
_read_item = msgspec.json.Decoder(_ItemEvent).decode
_read_response = msgspec.json.Decoder(_ResponseEvent).decode
_read_type = msgspec.json.Decoder(_Type).decode

_TYPE = b'{"type":"'
_TERMINAL = (b"response.completed", b"response.incomplete", b"response.failed")
_SILENT = ("message", "reasoning")
_DELTAS = {
    b"response.output_text.delta": ("message", "output_text"),
    b"response.refusal.delta": ("message", "refusal"),
    b"response.reasoning_text.delta": ("reasoning", "content"),
    b"response.reasoning_summary_text.delta": ("reasoning", "summary"),
    b"response.function_call_arguments.delta": ("function_call", "arguments"),
    b"response.custom_tool_call_input.delta": ("custom_tool_call", "input"),
}
"""Which type of item a delta belongs to, and which of its fields, or part of its content, it continues."""


class ResponsesStreamReader(EventReader):
    """Commits on the first text, reasoning, refusal or tool call; items and parts that are still empty are none."""

    def __init__(self) -> None:
        super().__init__()
        self._created = b""
        self._response: Response | None = None
        self._items: dict[int, Item] = {}
        self._open: dict[int, _Open] = {}

    def answer(self) -> Answer:
        response = self._response or self._begun()
        complete = self.ended and self.error is None
        try:
            return answer(response, self._output(response), complete)
        except UNREADABLE:
            unread = answer(response, [], complete)  # an item that is not what its type says: nothing can be told about the output
            return msgspec.structs.replace(unread, hosted=None)

    def _read(self, event: Event) -> None:
        name = _name(event)
        if name.endswith(b".delta"):
            self._delta(name, event.data)
        elif name == b"response.output_item.done":
            done = _read_item(event.data)
            self._items[done.output_index] = done.item
            self.committed = True
            self._note_tool(done.item)
        elif name == b"response.output_item.added":
            self._added(_read_item(event.data))
        elif name == b"response.created":
            self._created = event.data
        elif name in _TERMINAL:
            self.ended = True
            if name == b"response.failed":
                self.error = event.data
            self._response = _read_response(event.data).response
        elif name == b"error":
            self.error = event.data

    def _delta(self, name: bytes, data: bytes) -> None:
        event = _read_delta(data)
        if not event.delta:
            return
        self._count(event.delta)
        if name in _DELTAS:
            kind, field = _DELTAS[name]
            item = self._open.get(event.output_index)
            if item is None or item.field != field:
                item = self._open[event.output_index] = _Open(item.item if item is not None else Item(kind, "assistant"), field, [])
            item.pieces.append(event.delta)

    def _added(self, event: _ItemEvent) -> None:
        item = event.item
        if item.kind not in _SILENT:
            self._count(text(item.name))
            self._note_tool(item)
        self._open[event.output_index] = _Open(item, "", [])

    def _note_tool(self, item: Item) -> None:
        if name := called_tool(item):
            self.tools.add(name)

    def _begun(self) -> Response:
        try:
            response = _read_response(self._created).response
        except UNREADABLE:
            return Response()
        response.status = None  # "in_progress" is no way to finish
        return response

    def _output(self, response: Response) -> list[Item]:
        partial = {index: _as_item(item) for index, item in self._open.items() if item.pieces}
        known = partial | self._items
        if not known and response.output != NULL:
            return read_items(response.output)
        return [known[index] for index in sorted(known)]


def _name(event: Event) -> bytes:
    """The SDKs go by the type in the data, which OpenAI writes first; the event's own name says the same and may be left out."""
    data = event.data
    if data.startswith(_TYPE):
        return data[9 : data.find(b'"', 9)]
    return event.name or (_read_type(data).type.encode() if data.startswith(b"{") else b"")


def _as_item(unfinished: _Open) -> Item:
    whole = "".join(unfinished.pieces)
    encode = msgspec.json.encode
    match unfinished.field:
        case "output_text" | "refusal" as kind:
            raw = encode([{"type": kind, "text" if kind == "output_text" else kind: whole}])
            return msgspec.structs.replace(unfinished.item, content=Raw(raw))
        case "summary" | "content" as field:
            return msgspec.structs.replace(unfinished.item, **{field: Raw(encode([{"type": "summary_text", "text": whole}]))})
        case field:
            return msgspec.structs.replace(unfinished.item, **{field: Raw(encode(whole))})
