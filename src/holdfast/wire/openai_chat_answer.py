"""Answers of Chat Completions: whole bodies and streams of chunks, read into one `Answer`.

Of several choices (`n`) the record holds the first one, index 0; which of them the agent will continue from cannot be known.
"""

from collections.abc import Iterable
from math import exp

import msgspec
from msgspec import Raw, Struct

from holdfast.errors import MalformedAnswer
from holdfast.events.usage import Usage
from holdfast.wire import canonical
from holdfast.wire.call import Answer, ToolCall
from holdfast.wire.openai_chat_message import Content, Function, MessageToolCall, Said, content_text, tool_call, turn
from holdfast.wire.openai_usage import read_usage
from holdfast.wire.request_body import NULL
from holdfast.wire.sse import Splitter


class _AnswerMessage(Said, gc=False):
    reasoning_content: object = None
    reasoning: object = None


class _TokenLogprob(Struct, gc=False):
    logprob: float


class _Logprobs(Struct, gc=False):
    content: list[_TokenLogprob] | None = None


class _Choice(Struct, gc=False):
    message: _AnswerMessage | None = None
    finish_reason: str | None = None
    logprobs: Raw = NULL


class _Completion(Struct, gc=False):
    choices: list[_Choice]
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL
    service_tier: object = None


class _ToolDelta(MessageToolCall, gc=False):
    index: int | None = None


class _Delta(Struct, gc=False):
    content: Content = None
    refusal: str | None = None
    tool_calls: list[_ToolDelta] | None = None
    function_call: Function | None = None
    audio: object = None
    reasoning_content: object = None
    reasoning: object = None


class _StreamedChoice(Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    logprobs: Raw = NULL


class _Chunk(Struct, gc=False):
    choices: list[_StreamedChoice] | None = None
    id: str | None = None
    model: str | None = None
    usage: Raw = NULL
    service_tier: object = None
    error: Raw = NULL


class _OddChunk(Struct, gc=False):
    usage: Raw = NULL
    error: Raw = NULL


_completion = msgspec.json.Decoder(_Completion).decode
_chunk = msgspec.json.Decoder(_Chunk).decode
_odd_chunk = msgspec.json.Decoder(_OddChunk).decode
_logprobs = msgspec.json.Decoder(_Logprobs | None).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_answer(body: bytes) -> Answer:
    """A `chat.completion` body; raises MalformedAnswer when it is not one."""
    try:
        completion = _completion(body)
    except _UNREADABLE as error:
        raise MalformedAnswer(f"not a chat completion: {error}") from None
    choice = completion.choices[0] if completion.choices else _Choice()
    message = choice.message or _AnswerMessage()
    return Answer(
        model=completion.model or "",
        response_id=completion.id or "",
        text=message.text(),
        reasoning=_reasoning(message),
        refusal=message.refused(),
        tool_calls=message.calls(),
        finish_reason=choice.finish_reason or "",
        usage=read_usage(completion.usage, completion.service_tier),
        confidence=None if choice.logprobs == NULL else _confidence(_read_logprobs(choice.logprobs)),
        turns=(turn("assistant", message),) if choice.message else (),
        other_tools=tuple([call.name for other in completion.choices[1:] if other.message for call in other.message.calls()]),
    )


class ChatStreamReader:
    """Reads a stream of `chat.completion.chunk` events; see `wire.call.StreamReader`.

    hide_usage: the usage chunk was asked for by the guard alone and must not reach an agent that does not expect a chunk
    without choices.
    """

    def __init__(self, *, hide_usage: bool) -> None:
        self.committed = False
        self.ended = False
        self.error: bytes | None = None
        self.generated_bytes = 0
        self.tools: set[str] = set()
        self._hide_usage = hide_usage
        self._splitter = Splitter()
        self._id = self._model = self._finish_reason = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = _CallPieces()
        self._other_calls: dict[int, _CallPieces] = {}
        self._logprobs: list[float] = []
        self._usage: Usage | None = None
        self._tier: object = None

    def feed(self, data: bytes) -> bytes:
        """An event leaves only when it is whole: a failure reported after a torn one would be read as part of it."""
        splitter = self._splitter
        plain = splitter.plain(data)
        if plain is not None:
            return data if self._read(plain) else b""
        held = splitter.holding
        events = splitter.feed(data)
        kept = [event.raw for event in events if self._read(event.data, event.name)]
        if held or splitter.holding or len(kept) < len(events):
            return b"".join(kept)
        return data

    def flush(self) -> bytes:
        return self._splitter.flush()

    def answer(self) -> Answer:
        text, refusal, calls = "".join(self._text), "".join(self._refusal), self._calls.whole()
        said = canonical.turn("assistant", (text, refusal), [(call.name, call.arguments) for call in calls])
        return Answer(
            model=self._model,
            response_id=self._id,
            text=text,
            reasoning="".join(self._reasoning),
            refusal=refusal,
            tool_calls=calls,
            finish_reason=self._finish_reason,
            usage=self._usage,
            confidence=_confidence(self._logprobs),
            turns=(said,) if self.committed or self.ended else (),
            complete=self.ended and self.error is None,
        )

    def _read(self, data: bytes, name: bytes = b"") -> bool:
        """Whether the event of this name and data is for the agent."""
        if not data.startswith(b"{"):
            self.ended = self.ended or data.strip() == b"[DONE]"
            return True
        try:
            chunk = _chunk(data)
        except _UNREADABLE:
            self._read_odd(data)
            return True
        failed = chunk.error != NULL or name == b"error"
        if failed:
            self.error = data
        self._id = self._id or chunk.id or ""
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier
        self._model = self._model or chunk.model or ""
        for choice in chunk.choices or ():
            self._read_choice(choice)
        if chunk.usage != NULL:
            self._usage = read_usage(chunk.usage, self._tier) or self._usage
            return bool(chunk.choices) or failed or not self._hide_usage
        return True

    def _read_odd(self, data: bytes) -> None:
        """A chunk of another shape: what it says about money and failure still counts."""
        try:
            chunk = _odd_chunk(data)
        except _UNREADABLE:
            return
        self._usage = read_usage(chunk.usage, self._tier) or self._usage
        if chunk.error != NULL:
            self.error = data

    def _read_choice(self, choice: _StreamedChoice) -> None:
        first = not choice.index
        if choice.delta is not None:
            self._read_delta(choice.delta, choice.index or 0)
        if first:
            self._finish_reason = choice.finish_reason or self._finish_reason
            if choice.logprobs != NULL:
                self._logprobs += _read_logprobs(choice.logprobs)

    def _read_delta(self, delta: _Delta, index: int) -> None:
        first = not index
        content = delta.content
        text = content if type(content) is str else content_text(content)
        size = len(text) if text.isascii() else _size(text)
        if first and text:
            self._text.append(text)
        refusal = delta.refusal
        reasoning = _reasoning(delta) if delta.reasoning_content is not None or delta.reasoning is not None else ""
        if reasoning or refusal:
            size += _size(reasoning) + _size(refusal or "")
            if first:
                self._reasoning.append(reasoning)
                self._refusal.append(refusal or "")
        if delta.tool_calls or delta.function_call is not None:
            size += self._read_calls(delta.tool_calls or (), delta.function_call, index)
        if delta.audio is not None:
            size += _size(str(delta.audio))
        if size:
            self.generated_bytes += size
            self.committed = True

    def _read_calls(self, deltas: Iterable[_ToolDelta], legacy: Function | None, index: int) -> int:
        pieces = [(delta.index, tool_call(delta)) for delta in deltas]
        if legacy is not None:
            pieces.append((None, ToolCall(legacy.name or "", legacy.arguments or "")))
        calls = self._other_calls.setdefault(index, _CallPieces()) if index else self._calls
        for at, piece in pieces:
            if name := calls.add(at, piece if calls is self._calls else ToolCall(piece.name, "", piece.id)):
                self.tools.add(name)
        return sum(_size(piece.name) + _size(piece.arguments) for _, piece in pieces)


class _CallPieces:
    """Tool calls put together from their pieces.

    Pieces belong to the call that last had their index; an id that differs begins a new call (some servers number every call 0).
    """

    def __init__(self) -> None:
        self._calls: list[tuple[str, list[str], list[str]]] = []  # id, pieces of the name, pieces of the arguments
        self._at: dict[int | None, int] = {}

    def add(self, index: int | None, piece: ToolCall) -> str:
        """The call's name as far as it came, where this piece has some of it."""
        at = self._at.get(index)
        if at is None or (piece.id and piece.id != self._calls[at][0] != ""):
            self._at[index] = at = len(self._calls)
            self._calls.append((piece.id, [], []))
        _, names, arguments = self._calls[at]
        if piece.arguments:
            arguments.append(piece.arguments)
        if not piece.name:
            return ""
        names.append(piece.name)
        return "".join(names)

    def whole(self) -> tuple[ToolCall, ...]:
        return tuple(ToolCall("".join(names), "".join(arguments), call_id) for call_id, names, arguments in self._calls)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _reasoning(message: _AnswerMessage | _Delta) -> str:
    """From the two names that servers of this format use for it (DeepSeek and vLLM; OpenRouter and Groq)."""
    if isinstance(message.reasoning_content, str) and message.reasoning_content:
        return message.reasoning_content
    return message.reasoning if isinstance(message.reasoning, str) else ""


def _read_logprobs(raw: Raw) -> list[float]:
    try:
        logprobs = _logprobs(raw)
    except _UNREADABLE:
        return []
    return [token.logprob for token in (logprobs and logprobs.content) or ()]


def _confidence(logprobs: list[float]) -> float | None:
    return exp(min(sum(logprobs) / len(logprobs), 0.0)) if logprobs else None
