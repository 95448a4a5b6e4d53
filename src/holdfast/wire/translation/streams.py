"""Streams of one format, event by event, in another: `Source` reads, `Sink` writes."""

from typing import Protocol

import msgspec

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.events.usage import Usage
from holdfast.wire import sse
from holdfast.wire.translation.anthropic_stream import AnthropicSink, AnthropicSource
from holdfast.wire.translation.chat_stream import ChatSink, ChatSource
from holdfast.wire.translation.ids import digest
from holdfast.wire.translation.neutral import Began, CallBegan, CallPiece, Counted, Ended, Event, Failed, FormatName, Stopped
from holdfast.wire.translation.responses_sink import ResponsesSink
from holdfast.wire.translation.responses_source import ResponsesSource


class Source(Protocol):
    def read(self, event: sse.Event) -> list[Event | Counted]:
        """May raise what msgspec raises, MalformedAnswer and MalformedRequest."""


class Sink(Protocol):
    def write(self, event: Event) -> bytes:
        """May raise MalformedAnswer for what the format has no place for."""


class _Options(msgspec.Struct, gc=False):
    include_usage: bool | None = None


class _Request(msgspec.Struct, gc=False):
    stream_options: _Options | None = None


_read_request = msgspec.json.Decoder(_Request).decode

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError, MalformedAnswer, MalformedRequest)


class Events:
    """The events of a target's stream, from bytes in any split: the first is `Began` or `Failed`, the last `Ended` or `Failed`, if any.

    What cannot be read is a failure, and so is an end of which the target does not say why: nothing of an answer is dropped unread.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._splitter = sse.Splitter()
        self._began = self._stopped = self._over = False
        self._usage: Usage | None = None
        self._calls: set[int] = set()

    def feed(self, data: bytes) -> list[Event]:
        events: list[Event] = []
        for event in self._splitter.feed(data):
            for read in self._read(event):
                if self._over:
                    return events
                events += self._in_order(read)
        return events

    def fail(self, message: str) -> Failed:
        self._over = True
        return Failed(message)

    def _read(self, event: sse.Event) -> list[Event | Counted]:
        if len(event.raw) > sse.MAX_EVENT:
            return [Failed("the target sent an event that is too long")]
        try:
            return self._source.read(event)
        except _UNREADABLE as error:
            return [Failed(f"the target sent what cannot be translated: {error}")]

    def _in_order(self, event: Event | Counted) -> list[Event]:
        if isinstance(event, Counted):
            self._usage = event.usage
            return []
        if isinstance(event, CallBegan):
            self._calls.add(event.key)
        elif isinstance(event, CallPiece) and event.key not in self._calls:
            event = Failed("the target sent arguments of a call that it had not begun")
        elif isinstance(event, Ended):
            event = Ended(self._usage) if self._stopped else Failed("the target ended its answer without saying why")
        self._over = isinstance(event, Ended | Failed)
        self._stopped = self._stopped or isinstance(event, Stopped)
        if isinstance(event, Began):
            began, self._began = self._began, True
            return [] if began else [event]
        if self._began or isinstance(event, Failed):
            return [event]
        self._began = True
        return [Began("", ""), event]


def source_of(name: FormatName) -> Source:
    match name:
        case "openai-chat":
            return ChatSource()
        case "openai-responses":
            return ResponsesSource()
        case "anthropic-messages":
            return AnthropicSource()


class Translator:
    """Implements `StreamTranslator`. request: the caller's own body."""

    def __init__(self, caller: FormatName, target: FormatName, request: bytes) -> None:
        self._events = Events(source_of(target))
        self._sink = sink_of(caller, request)
        self._request = request

    def feed(self, data: bytes) -> bytes:
        written: list[bytes] = []
        for event in self._events.feed(data):
            if isinstance(event, Began) and not event.id:
                event = Began(f"holdfast_{digest(self._request.decode('utf-8', 'replace'))}", event.model, event.created_s)
            try:
                written.append(self._sink.write(event))
            except MalformedAnswer as error:
                written.append(self._sink.write(self._events.fail(str(error))))
                break
        return b"".join(written)

    def flush(self) -> bytes:
        """An event that was cut off says nothing that could be relied on, and an end is never made up."""
        return b""


def sink_of(name: FormatName, request: bytes) -> Sink:
    match name:
        case "openai-chat":
            return ChatSink(usage_wanted(request))
        case "openai-responses":
            return ResponsesSink()
        case "anthropic-messages":
            return AnthropicSink()


def usage_wanted(request: bytes) -> bool:
    """Whether a request in Chat Completions' format asks for the usage at the end of its stream."""
    try:
        options = _read_request(request).stream_options
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return options is not None and bool(options.include_usage)
