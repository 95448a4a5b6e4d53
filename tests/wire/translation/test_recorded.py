"""Recorded conversations of a real agent, and real tool schemas, from format to format and back: nothing of their meaning is lost."""

import gzip
import json
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.testing.meaning import Asked, Format, Said, asked, gathered, said, unequal
from holdfast.testing.meaning.questions import FORMATS
from holdfast.wire.translation.between import between

Message = dict[str, Any]
WAYS: list[tuple[Format, ...]] = [("openai-chat", *others, "openai-chat") for others in permutations(FORMATS[1:])]
"""From Chat through both other formats and back."""

by_way = pytest.mark.parametrize("way", WAYS, ids=" ".join)


@pytest.fixture(scope="module")
def trajectories(shared_data: Path) -> list[list[Message]]:
    packed = (shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()
    return [recorded["traj"] for recorded in json.loads(gzip.decompress(packed))]


def meant(format: Format, body: bytes) -> Asked:
    """Less the bound that Anthropic has to have."""
    return msgspec.structs.replace(asked(format, body), max_output=None)


def translated(way: tuple[Format, ...], body: bytes) -> list[bytes]:
    """The request at each station of its way."""
    stations = [body]
    for here, there in pairwise(way):
        translation = between(here, there)
        assert translation is not None
        stations.append(translation.request(stations[-1]))
    return stations


@by_way
def test_every_recorded_history_means_the_same_in_every_format(trajectories: list[list[Message]], way: tuple[Format, ...]) -> None:
    for trajectory in trajectories:
        body = msgspec.json.encode({"model": "gpt-4o", "messages": trajectory})
        wanted = meant("openai-chat", body)
        assert len(wanted.turns) > 4
        for format, station in zip(way, translated(way, body), strict=True):
            assert unequal(meant(format, station), wanted) == {}


@by_way
def test_every_real_tool_schema_means_the_same_in_every_format(shared_data: Path, way: tuple[Format, ...]) -> None:
    packed = (shared_data / "bfcl" / "BFCL_v4_live_simple.json.gz").read_bytes()
    for line in gzip.decompress(packed).splitlines():
        asks = json.loads(line)
        tools = [{"type": "function", "function": function} for function in asks["function"]]
        body = msgspec.json.encode({"model": "gpt-4o", "messages": asks["question"][0], "tools": tools})
        wanted = meant("openai-chat", body)
        for format, station in zip(way, translated(way, body), strict=True):
            assert unequal(meant(format, station), wanted) == {}


def answers(trajectories: list[list[Message]]) -> list[Message]:
    return [message for trajectory in trajectories for message in trajectory if message["role"] == "assistant"]


def told(way: tuple[Format, ...], body: bytes) -> list[tuple[Format, Said]]:
    """The answer of the first format's target as each caller along the way hears it."""
    heard = [(way[0], said(way[0], json.loads(body)))]
    for target, caller in pairwise(way):
        translation = between(caller, target)
        assert translation is not None
        body = translation.answer(body)
        heard.append((caller, said(caller, json.loads(body))))
    return heard


USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 30},
    "completion_tokens_details": {"reasoning_tokens": 20},
}


@by_way
def test_every_recorded_answer_means_the_same_in_every_format(trajectories: list[list[Message]], way: tuple[Format, ...]) -> None:
    for message in answers(trajectories):
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [choice], "usage": USAGE}
        (_, wanted), *others = told(way, json.dumps(whole).encode())
        assert (wanted.input, wanted.cached, wanted.output, wanted.thought) == (100, 30, 50, 20)
        assert [(format, unequal(heard, wanted)) for format, heard in others] == [(format, {}) for format in way[1:]]


def in_pieces(message: Message) -> bytes:
    """As a stream of Chat Completions, some characters at a time."""
    deltas: list[Message] = [{"role": "assistant", "content": ""}]
    text = message.get("content") or ""
    deltas += ({"content": text[at : at + 40]} for at in range(0, len(text), 40))
    for index, call in enumerate(message.get("tool_calls") or ()):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        deltas.append({"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": {"name": name, "arguments": ""}}]})
        deltas += (
            {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 9]}}]} for at in range(0, len(arguments), 9)
        )
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
    choices = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas] + [[end]]
    events = [{**chunk, "choices": choice} for choice in choices] + [{**chunk, "choices": [], "usage": USAGE}]
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def events_of(stream: bytes) -> list[Any]:
    data = [line.removeprefix("data: ") for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in data if line != "[DONE]"]


REQUESTS: dict[Format, bytes] = {
    "openai-chat": b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":{"include_usage":true}}',
    "openai-responses": b'{"model":"m","input":"x","stream":true}',
    "anthropic-messages": b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":99,"stream":true}',
}


@by_way
@pytest.mark.parametrize("size", [1_000_000, 37])
def test_every_recorded_answer_streams_the_same_in_every_format(
    trajectories: list[list[Message]], way: tuple[Format, ...], size: int
) -> None:
    for message in answers(trajectories)[:: 1 if size > 100 else 20]:
        stream = in_pieces(message)
        wanted = said(way[0], gathered(way[0], events_of(stream)))
        for target, caller in pairwise(way):
            translation = between(caller, target)
            assert translation is not None
            translator = translation.stream(REQUESTS[caller])
            stream = b"".join(translator.feed(stream[at : at + size]) for at in range(0, len(stream), size)) + translator.flush()
            assert unequal(said(caller, gathered(caller, events_of(stream))), wanted) == {}
