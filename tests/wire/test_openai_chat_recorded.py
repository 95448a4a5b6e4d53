"""Recorded conversations of a real agent: every request parses, and an answer is the very turn that its agent appends."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.wire.call import Answer, Rewrite
from holdfast.wire.openai_chat import FORMAT

Message = dict[str, Any]


@pytest.fixture(scope="module")
def trajectories(shared_data: Path) -> list[list[Message]]:
    packed = (shared_data / "taubench" / "gpt-4o-airline.json.gz").read_bytes()
    return [recorded["traj"] for recorded in json.loads(gzip.decompress(packed))]


def answered(message: Message) -> Answer:
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if message.get("tool_calls") else "stop"}
    return FORMAT.answer(json.dumps({"id": "c", "object": "chat.completion", "model": "gpt-4o", "choices": [choice]}).encode())


def streamed(message: Message) -> Answer:
    """The same message in pieces of a few characters."""
    call = FORMAT.parse(b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"x"}]}')
    reader = FORMAT.stream(call, Rewrite())
    text = message.get("content") or ""
    deltas: list[Message] = [{"content": text[at : at + 40]} for at in range(0, len(text), 40)]
    for index, tool in enumerate(message.get("tool_calls") or ()):
        name, arguments = tool["function"]["name"], tool["function"]["arguments"]
        deltas.append({"tool_calls": [{"index": index, "id": tool["id"], "function": {"name": name, "arguments": ""}}]})
        deltas += (
            {"tool_calls": [{"index": index, "function": {"arguments": arguments[at : at + 9]}}]} for at in range(0, len(arguments), 9)
        )
    for delta in deltas:
        reader.feed(b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n")
    reader.feed(b"data: [DONE]\n\n")
    return reader.answer()


def test_every_recorded_request_parses_and_is_bounded(trajectories: list[list[Message]]) -> None:
    requests = 0
    for messages in trajectories:
        for end, message in enumerate(messages):
            if message["role"] == "assistant":
                body = json.dumps({"model": "gpt-4o", "messages": messages[:end], "temperature": 0.0}).encode()
                call = FORMAT.parse(body)
                requests += 1
                assert [turn.role for turn in call.turns] == [earlier["role"] for earlier in messages[:end]]
                assert (call.unbounded, len(call.messages)) == ("", end)
                assert call.input_bound >= sum(len((earlier["content"] or "").encode()) for earlier in messages[:end])
    assert requests == 1_496


def test_an_answer_is_the_turn_that_its_agent_appends(trajectories: list[list[Message]]) -> None:
    for messages in trajectories:
        turns = FORMAT.parse(json.dumps({"model": "gpt-4o", "messages": messages}).encode()).turns
        for message, turn in zip(messages, turns, strict=True):
            if message["role"] == "assistant":
                assert answered(message).turns == (turn,)
                assert streamed(message).turns == (turn,)


def test_the_chosen_action_is_the_recorded_one(trajectories: list[list[Message]]) -> None:
    for message in (message for messages in trajectories for message in messages if message["role"] == "assistant"):
        expected = "+".join(call["function"]["name"] for call in message.get("tool_calls") or ()) or "reply"
        assert answered(message).chosen_action == streamed(message).chosen_action == expected
