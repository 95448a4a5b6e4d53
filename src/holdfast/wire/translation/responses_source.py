"""Reads streams of OpenAI's Responses.

The stream says everything up to four times; read are the deltas, and of the whole items only what no delta had.
"""

from typing import Literal

import msgspec
from msgspec import Raw, Struct

from holdfast.wire import sse
from holdfast.wire.openai_responses_answer import reported_usage
from holdfast.wire.openai_responses_item import Item, text
from holdfast.wire.request_body import NULL
from holdfast.wire.translation.chat_answer import created_of
from holdfast.wire.translation.errors import failure_in
from holdfast.wire.translation.neutral import (
    Began,
    Call,
    CallBegan,
    CallPiece,
    Counted,
    Ended,
    Event,
    Failed,
    Piece,
    Reasoning,
    Refused,
    Stopped,
    Text,
)
from holdfast.wire.translation.responses_answer import FullResponse, parts_of, stop_of


class _Data(Struct, gc=False):
    type: str = ""
    delta: str = ""
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item: Item | None = None
    response: Raw = NULL


_read = msgspec.json.Decoder(_Data).decode
_read_response = msgspec.json.Decoder(FullResponse).decode
_read_error = msgspec.json.Decoder(dict[str, object]).decode

_PARTS = 1_000  # more parts than any item has: an item and its part as one number
_KINDS: dict[type, Literal["text", "reasoning", "refusal"]] = {Text: "text", Reasoning: "reasoning", Refused: "refusal"}
_CALLS = ("function_call", "custom_tool_call")


class ResponsesSource:
    """Implements `Source`."""

    def __init__(self) -> None:
        self._told: dict[int, list[str]] = {}  # the text of each item so far, whatever it is
        self._calls = False

    def read(self, event: sse.Event) -> list[Event | Counted]:
        if not event.data or event.data == b"[DONE]":
            return []
        data = _read(event.data)
        match data.type or event.name.decode("utf-8", "replace"):
            case "response.output_text.delta":
                return self._piece(data, Piece("text", data.delta, data.output_index * _PARTS + data.content_index))
            case "response.refusal.delta":
                return self._piece(data, Piece("refusal", data.delta, data.output_index * _PARTS + data.content_index))
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                part = data.output_index * _PARTS + data.summary_index + data.content_index
                return self._piece(data, Piece("reasoning", data.delta, part))
            case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
                return self._call_piece(data.output_index, data.delta)
            case "response.output_item.added":
                return self._added(data)
            case "response.output_item.done":
                return self._done(data)
            case kind:
                return self._lifecycle(kind, data, event)

    def _lifecycle(self, kind: str, data: _Data, event: sse.Event) -> list[Event | Counted]:
        match kind:
            case "response.created":
                response = _read_response(data.response)
                return [Began(response.id or "", response.model or "", created_of(response.created_at))]
            case "response.completed" | "response.incomplete":
                return self._ended(_read_response(data.response))
            case "response.failed":
                error = _read_response(data.response).error
                return [Failed((error and error.message) or "the response has failed", code=(error and error.code) or "")]
            case "error":
                return [failure_in(_read_error(event.data))]
            case _:
                return []  # ends of parts, progress, what later versions add

    def _piece(self, data: _Data, piece: Piece) -> list[Event | Counted]:
        if not piece.text:
            return []
        self._told.setdefault(data.output_index, []).append(piece.text)
        return [piece]

    def _call_piece(self, index: int, delta: str) -> list[Event | Counted]:
        self._told.setdefault(index, []).append(delta)
        return [CallPiece(index, delta)] if delta else []

    def _added(self, data: _Data) -> list[Event | Counted]:
        item = data.item or Item()
        if item.kind not in _CALLS:
            parts_of(item)  # raises for what is not translated
            return []
        self._calls = True
        custom = item.kind == "custom_tool_call"
        began = CallBegan(data.output_index, text(item.call_id), text(item.name), custom)
        return [began, *self._call_piece(data.output_index, text(item.input if custom else item.arguments))]

    def _done(self, data: _Data) -> list[Event | Counted]:
        """What no delta told: some servers send items whole."""
        item, index = data.item or Item(), data.output_index
        events: list[Event | Counted] = []
        told = "".join(self._told[index]) if index in self._told else None
        if item.kind in _CALLS and told is None:
            return self._added(data)
        for number, part in enumerate(parts_of(item)):
            if isinstance(part, Call):
                rest = part.arguments[len(told or "") :] if part.arguments.startswith(told or "") else ""
                events += self._call_piece(index, rest)
            elif told is None:
                events += self._piece(data, Piece(_KINDS[type(part)], part.text, index * _PARTS + number))
        return events

    def _ended(self, response: FullResponse) -> list[Event | Counted]:
        usage = reported_usage(response, [])
        counted: list[Event | Counted] = [Counted(usage)] if usage is not None else []
        return [Stopped(stop_of(response, calls=self._calls)), *counted, Ended()]
