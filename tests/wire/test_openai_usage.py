"""The usage of Chat Completions, as servers really write it: of two readings the larger."""

import json
from typing import Any

import pytest
from msgspec import Raw

from holdfast.events.usage import Usage
from holdfast.wire.openai_chat import FORMAT
from holdfast.wire.openai_chat_answer import ChatStreamReader
from holdfast.wire.openai_usage import read_usage


def read(**fields: Any) -> Usage | None:
    return read_usage(Raw(json.dumps(fields).encode()))


def with_reasoning(count: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": count}}


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"completion_tokens": 50, "total_tokens": 60, **with_reasoning(40)}, 50),  # OpenAI: within
        ({"completion_tokens": 10, "total_tokens": 120, **with_reasoning(100)}, 110),  # xAI: beside, in the total
        ({"completion_tokens": 10, "total_tokens": 120}, 110),  # Gemini: beside, unnamed
        ({"completion_tokens": 10, "total_tokens": 20, **with_reasoning(100)}, 110),  # beside, and not in the total either
        ({"completion_tokens": 100, **with_reasoning(40)}, 140),  # nothing to tell by
    ],
)
def test_reasoning_beside_the_output_is_counted(fields: dict[str, Any], output: int) -> None:
    usage = read(prompt_tokens=10, **fields)
    assert usage is not None
    assert (usage.input, usage.output) == (10, output)
    assert usage.reasoning <= usage.output


def test_the_tier_that_served_is_read_from_bodies_and_streams() -> None:
    body = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}, "service_tier": "priority"}
    usage = FORMAT.answer(json.dumps(body).encode()).usage
    assert usage is not None and usage.tier == "priority"
    reader = ChatStreamReader(hide_usage=False)
    reader.feed(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"service_tier":"flex"}\n\n')
    reader.feed(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\ndata: [DONE]\n\n')
    streamed = reader.answer().usage
    assert streamed is not None and streamed.tier == "flex"


@pytest.mark.parametrize("tier", [7, None, "x" * 10_000, ["priority"]])
def test_a_tier_that_is_none_is_not_recorded(tier: Any) -> None:
    usage = read_usage(Raw(b'{"prompt_tokens":1,"completion_tokens":1}'), tier)
    assert usage == Usage(input=1, output=1)
