"""The official SDKs against the simulated provider over real connections."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from holdfast.testing.simulated_provider import Address, SimulatedProvider, running


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


MESSAGES: Any = [{"role": "user", "content": "Which city?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
    "required": ["city", "days"],
}
CHAT_TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("weather", "hotels")]
RESPONSES_TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": PARAMETERS},
    {"type": "custom", "name": "apply_patch"},
]
MESSAGES_TOOLS: Any = [{"name": name, "input_schema": PARAMETERS} for name in ("weather", "hotels")]
REPLY = re.compile(r"Understood: 3 tokens, checksum [0-9a-f]{8}\.")


def test_chat_whole_and_streamed_say_the_same(openai_client: openai.OpenAI) -> None:
    chat = openai_client.chat.completions
    whole = chat.create(model="sim-ok", messages=MESSAGES, n=2, logprobs=True)
    with chat.stream(model="sim-ok", messages=MESSAGES, n=2, logprobs=True, stream_options={"include_usage": True}) as stream:
        streamed = stream.get_final_completion()
    assert REPLY.fullmatch(whole.choices[1].message.content or "")
    assert [c.message.content for c in whole.choices] == [c.message.content for c in streamed.choices]
    assert [c.finish_reason for c in whole.choices] == [c.finish_reason for c in streamed.choices] == ["stop", "stop"]
    assert whole.usage == streamed.usage
    logprobs = [[token.logprob for token in choice.logprobs.content or ()] for choice in whole.choices if choice.logprobs]
    assert logprobs == [[token.logprob for token in choice.logprobs.content or ()] for choice in streamed.choices if choice.logprobs]
    assert whole.usage and len(logprobs[0]) * 2 == whole.usage.completion_tokens


def test_a_chat_stream_reports_usage_only_when_asked(openai_client: openai.OpenAI) -> None:
    chunks = list(openai_client.chat.completions.create(model="sim-tokens-2", messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "the sim."
    assert not any(chunk.usage for chunk in chunks)


@pytest.mark.parametrize(("model", "names"), [("sim-tool", ["weather"]), ("sim-tools-parallel", ["weather", "hotels"])])
def test_chat_tool_calls_come_with_valid_arguments_whole_and_streamed(openai_client: openai.OpenAI, model: str, names: list[str]) -> None:
    chat = openai_client.chat.completions
    whole = chat.create(model=model, messages=MESSAGES, tools=CHAT_TOOLS).choices[0]
    with chat.stream(model=model, messages=MESSAGES, tools=CHAT_TOOLS) as stream:
        streamed = stream.get_final_completion().choices[0]
    for choice in (whole, streamed):
        calls: Any = choice.message.tool_calls
        assert [(call.function.name, call.function.arguments) for call in calls] == [(name, '{"city":"city","days":3}') for name in names]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)


def test_chat_structured_output_parses(openai_client: openai.OpenAI) -> None:
    chat = openai_client.chat.completions
    parsed = chat.parse(model="sim-ok", messages=MESSAGES, response_format=City).choices[0].message.parsed
    assert parsed == City(name="name", population=1, districts=["districts"])
    loose = chat.create(model="sim-ok", messages=MESSAGES, response_format={"type": "json_object"})
    assert loose.choices[0].message.content == '{"reply":"reply"}'


def test_chat_refusal_and_reasoning(openai_client: openai.OpenAI) -> None:
    chat = openai_client.chat.completions
    refused = chat.create(model="sim-refuse", messages=MESSAGES).choices[0].message
    assert refused.refusal and refused.content is None
    with chat.stream(model="sim-refuse", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.refusal == refused.refusal
    reasoned: Any = chat.create(model="sim-reasoning", messages=MESSAGES)
    assert reasoned.choices[0].message.reasoning_content
    assert reasoned.usage.completion_tokens_details.reasoning_tokens > 0


@pytest.mark.parametrize("model", ["sim-ok", "sim-reasoning", "sim-refuse", "sim-tool", "sim-tools-parallel"])
def test_responses_whole_and_streamed_give_the_same_items(openai_client: openai.OpenAI, model: str) -> None:
    def items(response: Any) -> Any:
        return [re.sub(r"sim\d+", "sim", item.to_json()) for item in response.output]

    options: Any = {"model": model, "input": "Which city?", "tools": RESPONSES_TOOLS}
    whole = openai_client.responses.create(**options)
    events = list(openai_client.responses.create(**options, stream=True))
    last: Any = events[-1]
    assert (events[0].type, last.type) == ("response.created", "response.completed")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert items(last.response) == items(whole)
    assert last.response.usage == whole.usage
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [item.to_json() for item in done] == [item.to_json() for item in last.response.output]


def test_the_responses_helper_gathers_text_calls_and_structured_output(openai_client: openai.OpenAI) -> None:
    with openai_client.responses.stream(model="sim-tools-parallel", input="x", tools=RESPONSES_TOOLS) as stream:
        calls: Any = stream.get_final_response().output
    assert [(call.type, call.name) for call in calls] == [("function_call", "weather"), ("custom_tool_call", "apply_patch")]
    assert (calls[0].arguments, calls[1].input) == ('{"city":"city","days":3}', "sample")
    parsed = openai_client.responses.parse(model="sim-ok", input="x", text_format=City)
    assert parsed.output_parsed == City(name="name", population=1, districts=["districts"])
    cut = openai_client.responses.create(model="sim-tokens-50", input="x", max_output_tokens=4)
    assert (cut.status, cut.output_text) == ("incomplete", "the sim can say ")


def test_responses_log_probabilities_are_the_same_whole_and_streamed(openai_client: openai.OpenAI) -> None:
    options: Any = {"model": "sim-ok", "input": "x", "include": ["message.output_text.logprobs"]}
    whole: Any = openai_client.responses.create(**options)
    deltas = [event for event in openai_client.responses.create(**options, stream=True) if event.type == "response.output_text.delta"]
    told = [token.logprob for token in whole.output[0].content[0].logprobs]
    assert told == [token.logprob for event in deltas for token in event.logprobs]
    assert len(told) == whole.usage.output_tokens


def in_every_format(o: openai.OpenAI, a: anthropic.Anthropic, model: str, chat: Any, responses: Any, messages: Any) -> tuple[Any, Any, Any]:
    """The same question to the same model in the three formats, whole; streams have to end in the same objects."""
    ask: Any = {"model": model, "messages": MESSAGES}
    answers = (
        o.chat.completions.create(**{**ask, **chat}),
        o.responses.create(**{"model": model, "input": "Which city?", **responses}),
        a.messages.create(**{**ask, "max_tokens": 200, **messages}),
    )
    *_, ended, told = o.chat.completions.create(**{**ask, **chat}, stream=True, stream_options={"include_usage": True})
    assert (ended.choices[0].finish_reason, told.usage) == (answers[0].choices[0].finish_reason, answers[0].usage)
    last: Any = list(o.responses.create(**{"model": model, "input": "Which city?", **responses}, stream=True))[-1].response
    assert (last.status, last.incomplete_details, last.usage) == (answers[1].status, answers[1].incomplete_details, answers[1].usage)
    with a.messages.stream(**{**ask, "max_tokens": 200, **messages}) as streamed_messages:
        message = streamed_messages.get_final_message()
    stopped = (answers[2].stop_reason, answers[2].stop_sequence, answers[2].usage.output_tokens)
    assert (message.stop_reason, message.stop_sequence, message.usage.output_tokens) == stopped
    return answers


def test_a_content_filter_ends_an_answer_in_every_format(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    chat, response, message = in_every_format(openai_client, anthropic_client, "sim-filter", {}, {}, {})
    assert (chat.choices[0].message.content, chat.choices[0].finish_reason) == (None, "content_filter")
    assert (response.output, response.status, response.incomplete_details.reason) == ([], "incomplete", "content_filter")
    assert (message.content, message.stop_reason) == ([], "refusal")
    chat, response, message = in_every_format(openai_client, anthropic_client, "sim-filter-2", {}, {}, {})
    assert chat.choices[0].message.content == response.output_text == message.content[0].text == "the sim."


def test_an_answer_ends_before_a_stop_sequence(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    stop = {"stop": ["never", " checksum"]}, {}, {"stop_sequences": ["never", " checksum"]}
    chat, _, message = in_every_format(openai_client, anthropic_client, "sim-ok", *stop)
    assert chat.choices[0].message.content == message.content[0].text == "Understood: 3 tokens,"
    assert (chat.choices[0].finish_reason, message.stop_reason, message.stop_sequence) == ("stop", "stop_sequence", " checksum")


def test_usage_tells_cached_input_and_reasoning(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    chat, response, message = in_every_format(openai_client, anthropic_client, "sim-cached-4", {}, {}, {})
    assert chat.usage.prompt_tokens_details.cached_tokens == response.usage.input_tokens_details.cached_tokens == 4
    assert message.usage.cache_read_input_tokens == 4
    assert message.usage.input_tokens + 4 == chat.usage.prompt_tokens == response.usage.input_tokens
    asked = {"reasoning_effort": "low"}, {"reasoning": {"summary": "auto"}}, {"thinking": {"type": "adaptive"}}
    chat, response, message = in_every_format(openai_client, anthropic_client, "sim-ok", *asked)
    thought = chat.usage.completion_tokens_details.reasoning_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == message.usage.output_tokens_details.thinking_tokens == thought > 0


def test_reasoning_that_nobody_asked_to_see_is_counted_alone(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    asked = {"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}, {"thinking": {"type": "adaptive", "display": "omitted"}}
    _, response, message = in_every_format(openai_client, anthropic_client, "sim-ok", *asked)
    assert (response.output[0].type, response.output[0].summary) == ("reasoning", [])
    assert (message.content[0].type, message.content[0].thinking, bool(message.content[0].signature)) == ("thinking", "", True)
    assert response.usage.output_tokens_details.reasoning_tokens == message.usage.output_tokens_details.thinking_tokens > 0


def test_only_one_tool_is_called_where_parallel_calls_are_forbidden(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    one = {"parallel_tool_calls": False}
    chat, response, message = in_every_format(
        openai_client,
        anthropic_client,
        "sim-tools-parallel",
        {"tools": CHAT_TOOLS, **one},
        {"tools": RESPONSES_TOOLS, **one},
        {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    )
    assert len(chat.choices[0].message.tool_calls) == len(response.output) == len(message.content) == 1


def test_a_prompt_that_is_too_long_is_refused_in_the_words_of_each_format(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    assert len(in_every_format(openai_client, anthropic_client, "sim-context-6", {}, {}, {})) == 3
    with pytest.raises(openai.BadRequestError, match=r"maximum context length is 5 tokens\. However, your messages resulted in 6") as chat:
        openai_client.chat.completions.create(model="sim-context-5", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="exceeds the context window") as responses:
        openai_client.responses.create(model="sim-context-5", input="Which city?", stream=True)
    assert [(raised.value.code, raised.value.param) for raised in (chat, responses)] == [
        ("context_length_exceeded", "messages"),
        ("context_length_exceeded", "input"),
    ]
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 6 tokens > 5 maximum"):
        anthropic_client.messages.create(model="sim-context-5", messages=MESSAGES, max_tokens=9)
    assert anthropic_client.messages.count_tokens(model="sim-context-5", messages=MESSAGES).input_tokens == 6


def test_a_namespaced_tool_is_called_with_its_namespace(openai_client: openai.OpenAI) -> None:
    tools: Any = [{"type": "namespace", "name": "crm", "description": "", "tools": [{"type": "function", "name": "find"}]}]
    call: Any = openai_client.responses.create(model="sim-tool", input="x", tools=tools).output[0]
    assert (call.namespace, call.name) == ("crm", "find")


def test_tools_may_come_with_the_input_and_cost_their_tokens_there(openai_client: openai.OpenAI) -> None:
    def answer(tools: list[dict[str, str]]) -> Any:
        said: Any = [{"type": "additional_tools", "role": "developer", "tools": tools}, {"role": "user", "content": "x"}]
        return openai_client.responses.create(model="sim-tool", input=said)

    called, spoken = answer([{"type": "custom", "name": "exec"}]), answer([])
    assert (called.output[0].type, called.output[0].name) == ("custom_tool_call", "exec")
    assert spoken.output[0].type == "message"
    assert called.usage.input_tokens > spoken.usage.input_tokens


def test_embeddings_and_models(openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic) -> None:
    packed = openai_client.embeddings.create(model="e", input=["a", "b"]).data
    plain = openai_client.embeddings.create(model="e", input=["a", "b"], encoding_format="float").data
    assert [item.embedding for item in packed] == [pytest.approx(item.embedding, abs=1e-6) for item in plain]
    assert packed[0].embedding != packed[1].embedding
    assert openai_client.models.retrieve("gpt-5").id == anthropic_client.models.retrieve("gpt-5").id == "gpt-5"
    assert [model.id for model in openai_client.models.list()] == [model.id for model in anthropic_client.models.list()]


@pytest.mark.parametrize("model", ["sim-ok", "sim-reasoning", "sim-refuse", "sim-tool", "sim-tools-parallel"])
def test_messages_whole_and_streamed_give_the_same_message(anthropic_client: anthropic.Anthropic, model: str) -> None:
    def essence(message: Any) -> Any:
        blocks = [block.model_dump(include={"type", "text", "thinking", "signature", "name", "input"}) for block in message.content]
        return blocks, message.stop_reason, message.usage.input_tokens, message.usage.output_tokens

    options: Any = {"model": model, "max_tokens": 200, "messages": MESSAGES, "tools": MESSAGES_TOOLS}
    whole = anthropic_client.messages.create(**options)
    with anthropic_client.messages.stream(**options) as stream:
        streamed = stream.get_final_message()
    assert essence(whole) == essence(streamed)
    if model.startswith("sim-tool"):
        uses = [block for block in whole.content if block.type == "tool_use"]
        assert [use.input for use in uses] == [{"city": "city", "days": 3}] * len(uses)
        assert whole.stop_reason == "tool_use"


def test_messages_thinking_structured_output_and_bounds(anthropic_client: anthropic.Anthropic) -> None:
    messages = anthropic_client.messages
    thought = messages.create(model="claude-x", max_tokens=2000, messages=MESSAGES, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [block.type for block in thought.content] == ["thinking", "text"]
    parsed = messages.parse(model="claude-x", max_tokens=200, messages=MESSAGES, output_format=City)
    assert parsed.parsed_output == City(name="name", population=1, districts=["districts"])
    cut = messages.create(model="sim-tokens-50", max_tokens=7, messages=MESSAGES)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 7)
    assert messages.count_tokens(model="claude-x", messages=MESSAGES).input_tokens == cut.usage.input_tokens


def test_asynchronous_clients_get_the_same_answers() -> None:
    provider = SimulatedProvider()

    async def with_openai(address: Address) -> tuple[str | None, str, str]:
        async with openai.AsyncOpenAI(base_url=address.openai, api_key="any", max_retries=0) as client:
            whole = await client.chat.completions.create(model="sim-ok", messages=MESSAGES)
            chunks = await client.chat.completions.create(model="sim-ok", messages=MESSAGES, stream=True)
            streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
            async with client.responses.stream(model="sim-ok", input="Which city?") as stream:
                return whole.choices[0].message.content, streamed, (await stream.get_final_response()).output_text

    async def with_anthropic(address: Address) -> tuple[str | None, str, str]:
        async with anthropic.AsyncAnthropic(base_url=address.anthropic, api_key="any", max_retries=0) as client:
            whole = await client.messages.create(model="sim-ok", max_tokens=100, messages=MESSAGES)
            parsed = await client.messages.parse(model="sim-ok", max_tokens=100, messages=MESSAGES, output_format=City)
            assert parsed.parsed_output
            block: Any = whole.content[0]
            async with client.messages.stream(model="sim-ok", max_tokens=100, messages=MESSAGES) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                return block.text, text, await stream.get_final_text()

    async def serve_and(ask: Callable[[Address], Awaitable[tuple[str | None, str, str]]]) -> tuple[str | None, str, str]:
        async with running(provider.application) as address:
            return await ask(address)

    for ask in (with_openai, with_anthropic):
        answers = asyncio.run(serve_and(ask))
        assert len(set(answers)) == 1 and REPLY.fullmatch(answers[0] or "")


def test_a_client_that_leaves_a_stream_is_noticed(provider: SimulatedProvider) -> None:
    async def leave_early() -> None:
        async with (
            running(provider.application) as address,
            openai.AsyncOpenAI(base_url=address.openai, api_key="any", max_retries=0) as client,
        ):
            stream = await client.chat.completions.create(model="sim-stream-1000-10", messages=MESSAGES, stream=True)
            async for _ in stream:
                break
            await stream.close()
            while provider.stats.total.open:
                await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(leave_early(), 60))
    assert (provider.stats.total.cancelled, len(provider.stats.cancellations)) == (1, 1)
    assert provider.stats.total.output_tokens < 1000
