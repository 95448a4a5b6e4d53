"""What crosses from one provider's format to another's and back again, where a gateway stands between."""

from collections.abc import Callable

import msgspec

from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

MESSAGES = "/v1/messages"
ANSWER = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-6", "stop_reason": "end_turn"}
COUNTS = {"input_tokens": 5, "output_tokens": 1}


def test_a_provider_does_not_get_the_thoughts_of_the_fallback_back(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [anthropic/claude-opus-4-6, openai/gpt-4o]}, retries: {max: 0}}}")
    question = {"role": "user", "content": "hello"}
    request = {"model": "claude-opus-4-6", "max_tokens": 100, "messages": [question]}
    response = world.call("POST", MESSAGES, request)
    world.upstream.latest.answer(b"{}", 500)
    message = {"role": "assistant", "content": "hi", "reasoning_content": "a greeting"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    world.upstream.latest.answer(msgspec.json.encode({"id": "c", "model": "gpt-4o", "choices": [choice], "usage": usage}))
    content = msgspec.json.decode(response.body)["content"]
    assert [block["type"] for block in content] == ["thinking", "text"]

    again = [question, {"role": "assistant", "content": content}, {"role": "user", "content": "and?"}]
    world.call("POST", MESSAGES, {**request, "messages": again})
    sent = msgspec.json.decode(world.upstream.latest.request.body)["messages"]
    assert sent == [question, {"role": "assistant", "content": content[1:]}, again[2]]


def test_a_stream_that_cannot_be_translated_fails_over_before_its_first_token(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [openai/gpt-4o, anthropic/claude-opus-4-6]}, retries: {max: 0}}}")
    request = {"model": "m", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    response = world.call("POST", MESSAGES, request)
    world.upstream.latest.start()
    world.upstream.latest.data(b'data: {"id": "c", "choices": 5}\n\n')
    world.upstream.latest.end()
    assert len(world.upstream.exchanges) == 2
    assert not response.body
