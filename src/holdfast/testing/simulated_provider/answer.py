"""What the simulated model says, before any format writes it down."""

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import log
from zlib import crc32

import msgspec
from msgspec import Struct

from holdfast.testing.simulated_provider.prompt import TOKEN, Prompt, count

_CACHED_CHARACTERS = 65_536
_WORDS = ("the ", "sim ", "can ", "say ", "any ", "set ", "and ", "ask ", "for ", "its ", "own ", "end ")


class ToolUse(Struct, frozen=True):
    """A call of a tool; `arguments` is JSON text, or the plain input of a custom tool."""

    name: str
    arguments: str
    custom: bool = False
    namespace: str = ""


class Answer(Struct, frozen=True, kw_only=True):
    """One choice. refused: `text` is a refusal. cut: the bound of output tokens ended it; stop: this text did, and is no part of it;
    filtered: the provider's content filter did. hidden: the reasoning is counted but not shown."""

    text: str = ""
    calls: tuple[ToolUse, ...] = ()
    reasoning: str = ""
    refused: bool = False
    cut: bool = False
    stop: str = ""
    filtered: bool = False
    hidden: bool = False

    @property
    def speaks(self) -> bool:
        """Whether there is a message, if only an empty one, beside reasoning and calls."""
        return bool(self.text) or not (self.calls or self.reasoning or self.filtered)

    @property
    def reasoning_tokens(self) -> int:
        return count(self.reasoning)

    @property
    def output_tokens(self) -> int:
        """Everything generated, reasoning included."""
        said = count(self.reasoning) + count(self.text)
        return said + sum(count(call.name) + count(call.arguments) for call in self.calls) if self.calls else said


class Reply(Struct, frozen=True, kw_only=True):
    """An answered prompt. number: counts this provider's replies, for identifiers. created_s: seconds since the epoch.
    cached_tokens: those of the input that came from a cache."""

    prompt: Prompt
    answers: tuple[Answer, ...]
    number: int
    created_s: int
    billed: bool = True
    cached_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        """Those that are billed."""
        return self.prompt.input_tokens if self.billed else 0

    @property
    def output_tokens(self) -> int:
        return sum(answer.output_tokens for answer in self.answers)

    @property
    def reasoning_tokens(self) -> int:
        return sum(answer.reasoning_tokens for answer in self.answers)


class Streamed(Struct, frozen=True):
    """A reply as server-sent events.

    opening: what comes before the first token. pieces: bytes with the tokens they carry, 0 for events that carry none. closing: usage
    and the terminal marker, asked for after the last piece. error: the event that reports a failure with this message.
    """

    opening: bytes
    pieces: Iterator[tuple[bytes, int]]
    closing: Callable[[], bytes]
    error: Callable[[str], bytes]


def stopped(answer: Answer, stops: tuple[str, ...]) -> Answer:
    """The answer, ended before the first of `stops` that its text says."""
    found = [(at, stop) for stop in stops if stop and (at := answer.text.find(stop)) >= 0]
    if not found:
        return answer
    at, stop = min(found)
    return msgspec.structs.replace(answer, text=answer.text[:at], calls=(), stop=stop)


def limited(answer: Answer, bound: int | None) -> Answer:
    """The answer, cut after `bound` tokens: reasoning first, then text, then calls."""
    if bound is None or answer.output_tokens <= bound:
        return answer
    reasoning = answer.reasoning[: bound * TOKEN]
    left = bound - count(reasoning)
    text = answer.text[: left * TOKEN]
    left -= count(text)
    calls: list[ToolUse] = []
    for call in answer.calls:
        left -= count(call.name)
        if left <= 0:
            break
        calls.append(msgspec.structs.replace(call, arguments=call.arguments[: left * TOKEN]))
        left -= count(calls[-1].arguments)
    return Answer(text=text, calls=tuple(calls), reasoning=reasoning, refused=answer.refused, cut=True, hidden=answer.hidden)


@lru_cache(64)
def filler(tokens: int) -> str:
    """A text of exactly so many tokens, one word each."""
    rounds, rest = divmod(tokens, len(_WORDS))
    return "".join((*_WORDS * rounds, *_WORDS[:rest]))[:-1] + "." if tokens else ""


def logprobs(text: str) -> list[dict[str, object]]:
    """What OpenAI says of each token; the same token is always as likely, between 0.45 and 0.95."""
    tokens = (text[at : at + TOKEN] for at in range(0, len(text), TOKEN))
    return [_logprob(token, token.encode("utf-8", "replace")) for token in tokens]


def _logprob(token: str, spelled: bytes) -> dict[str, object]:
    return {"token": token, "logprob": round(log(0.95 - crc32(spelled) % 6 / 10), 4), "bytes": list(spelled), "top_logprobs": []}


def json_tokens(text: str) -> tuple[bytes, ...]:
    """The text's tokens as JSON strings, in order."""
    return _json_tokens(text) if len(text) > _CACHED_CHARACTERS else _cached_tokens(text)


def _json_tokens(text: str) -> tuple[bytes, ...]:
    encode = msgspec.json.encode
    return tuple(encode(text[at : at + TOKEN]) for at in range(0, len(text), TOKEN))


_cached_tokens = lru_cache(256)(_json_tokens)
