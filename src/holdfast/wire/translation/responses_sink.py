"""Writes streams of OpenAI's Responses: every item with its parts, and at the end the whole response."""

from typing import Literal

import msgspec
from msgspec import Struct

from holdfast.events.usage import Usage
from holdfast.wire.translation.errors import error_of_stream
from holdfast.wire.translation.neutral import (
    Began,
    Call,
    CallBegan,
    CallPiece,
    Ended,
    Event,
    Failed,
    Piece,
    Stopped,
)
from holdfast.wire.translation.responses_answer import (
    Object,
    call_item,
    message_item,
    reasoning_item,
    response_object,
    text_part,
)


class _OpenPart(Struct):
    """A part of the open item as far as it came. block None: any further piece of the kind goes on with it."""

    kind: Literal["text", "reasoning", "refusal"]
    block: int | None
    pieces: list[str]


class _OpenItem(Struct):
    """The message or the reasoning that is being written."""

    index: int
    item: Object
    parts: list[Object]
    part: _OpenPart | None = None


class Unfinished(Struct):
    """The item that another stream left open, its finished parts, the type of the open one if there is one, and its pieces so far."""

    index: int
    item: Object
    parts: list[Object]
    part: str | None
    said: list[str]


class _OpenCall(Struct):
    index: int
    call: CallBegan
    item_id: str
    pieces: list[str]


_KINDS: dict[str, Literal["text", "reasoning", "refusal"]] = {
    "output_text": "text",
    "refusal": "refusal",
    "summary_text": "reasoning",
    "reasoning_text": "reasoning",
}


class ResponsesSink:
    """Implements `Sink`."""

    def __init__(self) -> None:
        self._number = 0
        self._head = Began("", "")
        self._base: Object = {}
        self._output: dict[int, Object] = {}
        self._next = 0
        self._open: _OpenItem | None = None
        self._calls: dict[int, _OpenCall] = {}
        self._stop: Stopped | None = None

    def write(self, event: Event) -> bytes:
        match event:
            case Piece():
                return self._piece(event)
            case CallPiece():
                return self._call_piece(event)
            case CallBegan():
                return self._call(event)
            case Began():
                self._head = event
                started = response_object(event.id, event.model, event.created_s, [], None)
                return self._event("response.created", response=started) + self._event("response.in_progress", response=started)
            case Stopped():
                return self._stopped(event)
            case Failed():
                return error_of_stream("openai-responses", event, self._number)
            case Ended():
                return self._end(event.usage)

    def go_on(self, head: Began, base: Object, number: int, output: dict[int, Object], unfinished: Unfinished | None) -> None:
        """Begin behind what another stream has sent: its response as it began, its next sequence number, its finished items, and the item
        that it left open."""
        self._head = head
        self._base = base
        self._number = number
        self._output = output
        self._next = max(output, default=-1) + 1
        if unfinished is not None:
            part = None
            if (kind := _KINDS.get(unfinished.part or "")) is not None:
                part = _OpenPart(kind, None, list(unfinished.said))
            self._open = _OpenItem(unfinished.index, unfinished.item, list(unfinished.parts), part)
            self._next = max(self._next, unfinished.index + 1)

    def _piece(self, piece: Piece) -> bytes:
        written = b""
        kind = "reasoning" if piece.kind == "reasoning" else "message"
        if self._open is None or self._open.item["type"] != kind:
            written = self._close("completed") + self._start(kind)
        item = self._open
        assert item is not None
        part = item.part
        if part is None or part.kind != piece.kind or part.block not in (None, piece.block):
            written += self._close_part(item) + self._start_part(item, piece)
            part = item.part
        assert part is not None
        part.block = piece.block
        part.pieces.append(piece.text)
        names = {"text": "response.output_text", "reasoning": "response.reasoning_summary_text", "refusal": "response.refusal"}
        more: Object = {"logprobs": []} if piece.kind == "text" else {}
        return written + self._event(f"{names[piece.kind]}.delta", **self._where(item, piece.kind), delta=piece.text, **more)

    def _start(self, kind: str) -> bytes:
        index = self._next
        self._next += 1
        parts: list[Object] = []
        made = reasoning_item(self._head.id, index, []) if kind == "reasoning" else message_item(self._head.id, index, [], "in_progress")
        self._open = _OpenItem(index, made, parts)
        return self._event("response.output_item.added", output_index=index, item=made)

    def _start_part(self, item: _OpenItem, piece: Piece) -> bytes:
        item.part = _OpenPart(piece.kind, piece.block, [])
        name = "response.reasoning_summary_part.added" if piece.kind == "reasoning" else "response.content_part.added"
        return self._event(name, **self._where(item, piece.kind), part=_part(piece.kind, ""))

    def _close_part(self, item: _OpenItem) -> bytes:
        part = item.part
        if part is None:
            return b""
        whole = "".join(part.pieces)
        where = self._where(item, part.kind)
        done = _part(part.kind, whole)
        item.parts.append(done)
        item.part = None
        if part.kind == "reasoning":
            text = self._event("response.reasoning_summary_text.done", **where, text=whole)
            return text + self._event("response.reasoning_summary_part.done", **where, part=done)
        if part.kind == "refusal":
            text = self._event("response.refusal.done", **where, refusal=whole)
        else:
            text = self._event("response.output_text.done", **where, text=whole, logprobs=[])
        return text + self._event("response.content_part.done", **where, part=done)

    def _close(self, status: str) -> bytes:
        item = self._open
        if item is None:
            return b""
        written = self._close_part(item)
        self._open = None
        if item.item["type"] == "reasoning":
            done = {**item.item, "summary": item.parts}
        else:
            done = {**item.item, "content": item.parts, "status": status}
        self._output[item.index] = done
        return written + self._event("response.output_item.done", output_index=item.index, item=done)

    def _where(self, item: _OpenItem, kind: str) -> Object:
        part = "summary_index" if kind == "reasoning" else "content_index"
        return {"item_id": item.item["id"], "output_index": item.index, part: len(item.parts)}

    def _call(self, call: CallBegan) -> bytes:
        """Calls are open side by side: pieces of several may come in turns."""
        written = self._close("completed")
        index = self._next
        self._next += 1
        item = call_item(self._head.id, index, Call(call.id, call.name, "", call.custom), "in_progress", begun=True)
        self._calls[call.key] = _OpenCall(index, call, str(item["id"]), [])
        return written + self._event("response.output_item.added", output_index=index, item=item)

    def _call_piece(self, piece: CallPiece) -> bytes:
        call = self._calls[piece.key]
        call.pieces.append(piece.text)
        name = "response.custom_tool_call_input.delta" if call.call.custom else "response.function_call_arguments.delta"
        return self._event(name, item_id=call.item_id, output_index=call.index, delta=piece.text)

    def _close_call(self, call: _OpenCall, status: str) -> bytes:
        whole = "".join(call.pieces)
        item = call_item(self._head.id, call.index, Call(call.call.id, call.call.name, whole, call.call.custom), status)
        self._output[call.index] = item
        where: Object = {"item_id": call.item_id, "output_index": call.index}
        if call.call.custom:
            text = self._event("response.custom_tool_call_input.done", **where, input=whole)
        else:
            text = self._event("response.function_call_arguments.done", **where, name=call.call.name, arguments=whole or "{}")
        return text + self._event("response.output_item.done", output_index=call.index, item=item)

    def _stopped(self, event: Stopped) -> bytes:
        self._stop = event
        status = "incomplete" if event.stop in ("length", "filter") else "completed"
        return self._close(status) + b"".join([self._close_call(call, status) for call in self._calls.values()])

    def _end(self, counted: Usage | None) -> bytes:
        stop = self._stop or Stopped("end")
        output = [self._output[index] for index in sorted(self._output)]
        whole = response_object(self._head.id, self._head.model, self._head.created_s, output, stop.stop, counted)
        if self._base:
            whole = self._base | {name: whole[name] for name in ("status", "incomplete_details", "output", "usage")}
        return self._event(f"response.{whole['status']}", response=whole)

    def _event(self, event: str, **fields: object) -> bytes:
        number = self._number
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (
            event.encode(),
            msgspec.json.encode({"type": event, "sequence_number": number, **fields}),
        )


def _part(kind: str, written: str) -> Object:
    if kind == "reasoning":
        return {"type": "summary_text", "text": written}
    return {"type": "refusal", "refusal": written} if kind == "refusal" else text_part(written)
