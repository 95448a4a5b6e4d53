"""Thoughts of a fallback's model are taken out again before a provider that did not have them gets them back."""

from typing import Any

import msgspec
import pytest

from holdfast.wire.translation.between import between
from holdfast.wire.translation.foreign import without_foreign_thoughts

THOUGHT = {
    "id": "chatcmpl-1",
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "so", "reasoning_content": "hm"}, "finish_reason": "stop"}],
}


def told(caller: str) -> dict[str, Any]:
    """What a caller got from a target that speaks Chat Completions."""
    translation = between(caller, "openai-chat")
    assert translation is not None
    answer: dict[str, Any] = msgspec.json.decode(translation.answer(msgspec.json.encode(THOUGHT)))
    return answer


def sent(name: str, body: dict[str, Any]) -> Any:
    return msgspec.json.decode(without_foreign_thoughts(name, msgspec.json.encode(body)))


def test_anthropic_gets_no_thought_that_it_did_not_sign() -> None:
    own = {"type": "thinking", "thinking": "mine", "signature": "EqQB"}
    blocks = told("anthropic-messages")["content"]
    assert blocks[0]["type"] == "thinking"
    body = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": [own, *blocks]}], "max_tokens": 99}
    assert sent("anthropic-messages", body)["messages"][1] == {"role": "assistant", "content": [own, {"type": "text", "text": "so"}]}


def test_a_message_that_was_nothing_but_thoughts_is_left_out() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": told("anthropic-messages")["content"][:1]}]}
    assert sent("anthropic-messages", body)["messages"] == [{"role": "user", "content": "hi"}]


def test_openai_gets_no_reasoning_item_that_it_did_not_make() -> None:
    own = {"type": "reasoning", "id": "rs_68", "summary": [], "encrypted_content": "sealed"}
    items = told("openai-responses")["output"]
    assert [item["type"] for item in items] == ["reasoning", "message"]
    body = {"input": [{"role": "user", "content": "hi"}, own, *items]}
    assert sent("openai-responses", body)["input"] == [{"role": "user", "content": "hi"}, own, items[1]]


@pytest.mark.parametrize("name", ["openai-chat", "openai-responses", "anthropic-messages"])
def test_a_request_without_them_is_the_very_same_object(name: str) -> None:
    body = b'{"messages": [{"role": "user", "content": "what does \\"holdfast\\" mean? rs_holdfast~"}], "input": "holdfast~"}'
    assert without_foreign_thoughts(name, body) is body
