"""Requests between the formats: what comes back means the same, and the SDKs' own types and our readers take what is written."""

import json
from typing import Any

import msgspec
import pytest
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming as AnthropicParams
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as ResponsesParams
from pydantic import TypeAdapter

from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import WireFormat
from holdfast.wire.translation import (
    Translation,
    anthropic_reader,
    anthropic_writer,
    chat_reader,
    chat_writer,
    responses_reader,
    responses_writer,
)
from holdfast.wire.translation.anthropic_writer import FIRST_WORD, MAX_TOKENS
from holdfast.wire.translation.between import FORMATS, between
from holdfast.wire.translation.neutral import (
    Call,
    Document,
    FormatName,
    Image,
    Message,
    OutputFormat,
    Part,
    Request,
    Result,
    Text,
    Tool,
    ToolChoice,
)

PAIRS = [(caller, target) for caller in FORMATS for target in FORMATS if caller != target]
FORMS: dict[str, WireFormat] = {
    "openai-chat": openai_chat.FORMAT,
    "openai-responses": openai_responses.FORMAT,
    "anthropic-messages": anthropic_messages.FORMAT,
}
READ = {
    "openai-chat": chat_reader.read_request,
    "openai-responses": responses_reader.read_request,
    "anthropic-messages": anthropic_reader.read_request,
}
WRITE = {
    "openai-chat": chat_writer.write_request,
    "openai-responses": responses_writer.write_request,
    "anthropic-messages": anthropic_writer.write_request,
}
PARAMS: dict[str, TypeAdapter[Any]] = {
    "openai-chat": TypeAdapter(ChatParams),
    "openai-responses": TypeAdapter(ResponsesParams),
    "anthropic-messages": TypeAdapter(AnthropicParams),
}

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(str.strip)
names = st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True)
base64 = st.sampled_from(["aGk=", "QUJD", "AAAA"])
images = st.builds(Image, media_type=st.sampled_from(["image/png", "image/jpeg"]), data=base64) | st.builds(
    Image, url=st.sampled_from(["https://example.com/a.png", "http://example.com/b"])
)
documents = st.builds(Document, media_type=st.just("application/pdf"), data=base64, name=st.sampled_from(["a.pdf", "b.pdf"]))
objects = st.dictionaries(names, st.integers(-(2**53), 2**53) | words | st.none() | st.lists(st.booleans(), max_size=2), max_size=3)
texts = st.builds(Text, words)


@st.composite
def rounds(draw: st.DrawFn) -> list[Message]:
    """What the user says, and what the assistant does about it."""
    said: list[Part] = draw(st.lists(texts | images | documents, min_size=1, max_size=3))
    messages = [Message("user", tuple(said))]
    if text := draw(st.none() | texts):
        messages.append(Message("assistant", (text,)))
    count = draw(st.integers(0, 3))
    calls = [Call(f"call_{draw(names)}_{index}", draw(names), json.dumps(draw(objects))) for index in range(count)]
    if calls:
        said_before = messages.pop().parts if messages[-1].role == "assistant" else ()
        messages.append(Message("assistant", (*said_before, *calls)))
        messages.append(Message("user", tuple(Result(call.id, (Text(draw(words)),)) for call in calls)))
    return messages


@st.composite
def requests(draw: st.DrawFn) -> Request:
    histories: list[list[Message]] = draw(st.lists(rounds(), max_size=3))
    tools = [
        Tool(name, draw(st.none() | words), Raw(json.dumps({"type": "object", "properties": draw(objects)}).encode()))
        for name in draw(st.lists(names, max_size=2, unique=True))
    ]
    choices = [ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), *[ToolChoice("named", tool.name) for tool in tools]]
    schema = Raw(b'{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false,"title":"answer"}')
    choice = draw(st.none() | st.sampled_from(choices)) if tools else None
    return Request(
        model="m",
        system=tuple(draw(st.lists(words, max_size=1))),
        messages=[*[message for history in histories for message in history], Message("user", (Text(draw(words)),))],
        tools=tools,
        choice=choice,
        parallel=draw(st.none() | st.booleans()) if tools and choice is not None and choice.mode != "none" else None,
        format=draw(st.none() | st.just(OutputFormat(schema, "answer", strict=True))),
        effort=draw(st.sampled_from(["", "low", "medium", "high", "xhigh", "max"])),
        max_output=draw(st.integers(1_000, 64_000)),
        temperature=draw(st.none() | st.sampled_from([Raw(b"0"), Raw(b"0.7")])),
        top_p=draw(st.none() | st.just(Raw(b"0.9"))),
        user=draw(st.sampled_from(["", "u-1"])),
        stream=draw(st.booleans()),
    )


def read_whole(value: Any, given: Any) -> None:
    """Pydantic checks the elements of an Iterable only as they are taken (and takes text for one)."""
    if isinstance(given, dict):
        for name, field in given.items():
            read_whole(value[name], field)
    elif isinstance(given, list):
        for element, field in zip(value, given, strict=True):
            read_whole(element, field)


def translation(caller: str, target: str, model: str = "") -> Translation:
    found = between(caller, target, model)
    assert found is not None
    return found


def spoken(messages: list[Message], system: tuple[str, ...]) -> list[object]:
    """What was said, by whom, in order, however it is cut into messages."""
    said: list[object] = [("system", text) for text in system]
    for message in messages:
        for part in message.parts:
            match part:
                case Text():
                    said.append((message.role, part.text))
                case Call():
                    said.append(("calls", part.id, part.name, json.loads(part.arguments)))
                case Result():
                    said.append(("result", part.call_id, [piece.text for piece in part.parts if isinstance(piece, Text)]))
                case Image() | Document():
                    said.append((message.role, part.url, part.media_type, part.data))
    return said


def meaning(body: bytes, name: FormatName) -> dict[str, object]:
    request = READ[name](body, "openai-chat" if name != "openai-chat" else "openai-responses")
    system = [part.text for message in request.messages if message.role == "system" for part in message.parts if isinstance(part, Text)]
    said = spoken([message for message in request.messages if message.role != "system"], (*request.system, *system))
    wanted = request.format
    return {
        "said": said,
        "tools": [(tool.name, tool.description, msgspec.json.decode(tool.schema or b"{}")) for tool in request.tools],
        "choice": request.choice or ToolChoice("auto") if request.tools else None,
        "parallel": request.parallel is not False,
        "format": wanted and (msgspec.json.decode(wanted.schema or b"null"), wanted.strict),
        "effort": request.effort,
        "sampling": (request.temperature, request.top_p),
        "limits": (request.max_output, request.user, request.stream),
    }


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@given(request=requests())
@settings(max_examples=40, deadline=None)
def test_a_request_that_goes_there_and_back_means_the_same(caller: FormatName, target: FormatName, request: Request) -> None:
    body = WRITE[caller](request)
    there = translation(caller, target).request(body)
    assert meaning(translation(target, caller).request(there), caller) == meaning(body, caller)


@pytest.mark.parametrize(("caller", "target"), PAIRS)
@given(request=requests())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_what_the_sdk_and_our_reader_take(caller: FormatName, target: FormatName, request: Request) -> None:
    request.stream = False
    there = translation(caller, target).request(WRITE[caller](request))
    older = {"temperature", "top_p"} if target == "anthropic-messages" else set()  # its SDK knows the fields of the latest models alone
    read_whole(PARAMS[target].validate_json(there), {name: value for name, value in json.loads(there).items() if name not in older})
    call = FORMS[target].parse(there)
    assert (call.model, call.stream, call.max_output) == ("m", False, request.max_output)
    assert not call.unbounded or "document" in call.unbounded
    if target == "anthropic-messages":
        roles = [message["role"] for message in json.loads(there)["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


def sent(caller: str, target: str, body: dict[str, Any], model: str = "") -> Any:
    return msgspec.json.decode(translation(caller, target, model).request(msgspec.json.encode(body)))


def ask(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": messages or [{"role": "user", "content": "hi"}], **more}


CALLED = {"role": "assistant", "content": None, "tool_calls": []}


def calls(*ids: str) -> dict[str, Any]:
    made = [{"id": name, "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}} for name in ids]
    return {"role": "assistant", "content": "on it", "tool_calls": made}


def test_results_of_parallel_calls_are_one_message_before_what_the_user_says_next() -> None:
    results = [{"role": "tool", "tool_call_id": name, "content": name} for name in ("a", "b")]
    body = ask({"role": "user", "content": "go"}, calls("a", "b"), *results, {"role": "user", "content": "and?"})
    messages = sent("openai-chat", "anthropic-messages", body)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert [block["type"] for block in messages[1]["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["type"] for block in messages[2]["content"]] == ["tool_result", "tool_result", "text"]


def test_calls_and_results_between_each_other_stay_in_turn() -> None:
    items = []
    for name in ("a", "b"):
        items.append({"type": "function_call", "call_id": name, "name": "f", "arguments": "{}", "id": f"fc_{name}", "status": "completed"})
        items.append({"type": "function_call_output", "call_id": name, "output": name})
    body = {"model": "m", "input": [{"role": "user", "content": "go"}, *items]}
    messages = sent("openai-responses", "anthropic-messages", body)["messages"]
    assert [[block["type"] for block in message["content"]] for message in messages] == [
        ["text"],
        ["tool_use"],
        ["tool_result"],
        ["tool_use"],
        ["tool_result"],
    ]


def test_a_system_prompt_in_the_middle_keeps_its_place() -> None:
    body = ask(
        {"role": "system", "content": "first"},
        {"role": "user", "content": "hi"},
        {"role": "developer", "content": "from now on French"},
        {"role": "user", "content": "go on"},
    )
    written = sent("openai-chat", "anthropic-messages", body)
    assert written["system"] == [{"type": "text", "text": "first"}]
    assert [block["text"] for block in written["messages"][0]["content"]] == ["hi", "<system>\nfrom now on French\n</system>", "go on"]
    assert sent("openai-chat", "openai-responses", body)["input"][2] == {
        "type": "message",
        "role": "developer",
        "content": "from now on French",
    }


def test_a_history_that_begins_with_the_assistant_gets_a_first_word() -> None:
    body = ask({"role": "assistant", "content": "How can I help?"}, {"role": "user", "content": "hi"})
    messages = sent("openai-chat", "anthropic-messages", body)["messages"]
    assert messages[0] == {"role": "user", "content": [{"type": "text", "text": FIRST_WORD}]}


def test_max_tokens_that_the_caller_did_not_set_has_a_default() -> None:
    assert sent("openai-chat", "anthropic-messages", ask())["max_tokens"] == MAX_TOKENS
    assert sent("openai-chat", "anthropic-messages", ask(), "claude-3-haiku-20240307")["max_tokens"] == 4_096
    assert sent("openai-chat", "anthropic-messages", ask(max_tokens=7))["max_tokens"] == 7


def test_an_id_that_the_target_would_not_take_is_the_same_on_call_and_result() -> None:
    body = ask({"role": "user", "content": "go"}, calls("functions.f:0"), {"role": "tool", "tool_call_id": "functions.f:0", "content": "1"})
    for target in ("anthropic-messages", "openai-responses"):
        written = json.dumps(sent("openai-chat", target, body))
        assert "functions.f:0" not in written
    messages = sent("openai-chat", "anthropic-messages", body)["messages"]
    assert messages[1]["content"][1]["id"] == messages[2]["content"][0]["tool_use_id"]


def test_arguments_that_are_no_object_are_shown_as_such() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": '}}
    body = ask(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "not JSON"},
    )
    block = sent("openai-chat", "anthropic-messages", body)["messages"][1]["content"][0]
    assert block["input"] == {"INVALID_JSON": '{"x": '}


RESULT = {
    "type": "tool_result",
    "tool_use_id": "t",
    "is_error": True,
    "content": [{"type": "text", "text": "no such page"}, {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}],
}
USED = ask(
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
    {"role": "user", "content": [RESULT]},
    max_tokens=99,
)


def test_pictures_in_a_result_follow_in_a_message_that_says_where_they_belong() -> None:
    tool, user = sent("anthropic-messages", "openai-chat", USED)["messages"][2:]
    assert tool == {"role": "tool", "tool_call_id": "t", "content": "Error: no such page"}
    assert user["role"] == "user"
    assert "t" in user["content"][0]["text"]
    assert user["content"][1]["image_url"]["url"] == "https://example.com/a.png"


def test_pictures_in_a_result_stay_in_it_where_the_format_has_room() -> None:
    output = sent("anthropic-messages", "openai-responses", USED)["input"][2]["output"]
    assert [part["type"] for part in output] == ["input_text", "input_image"]


def test_thoughts_in_a_history_are_left_out() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    body = ask(
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [thought, {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "yes"}]},
        {"role": "user", "content": "and?"},
        max_tokens=99,
    )
    for target in ("openai-chat", "openai-responses"):
        assert "hm" not in json.dumps(sent("anthropic-messages", target, body))
    items = [{"role": "user", "content": "go"}, {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}]
    for target in ("openai-chat", "anthropic-messages"):
        assert "sealed" not in json.dumps(sent("openai-responses", target, {"model": "m", "input": items}))


@pytest.mark.parametrize(
    ("model", "thinking", "effort"),
    [
        ("", {"type": "adaptive"}, "high"),
        ("claude-opus-4-7", {"type": "adaptive"}, "high"),
        ("claude-sonnet-4-6", {"type": "adaptive"}, "high"),
        ("claude-sonnet-4-5-20250929", {"type": "enabled", "budget_tokens": 10_000}, None),
        ("claude-opus-4-1", {"type": "enabled", "budget_tokens": 10_000}, None),
        ("claude-sonnet-4-20250514", {"type": "enabled", "budget_tokens": 10_000}, None),
        ("claude-3-7-sonnet-latest", {"type": "enabled", "budget_tokens": 10_000}, None),
        ("claude-3-5-haiku-latest", None, None),
    ],
)
def test_effort_becomes_what_the_model_knows(model: str, thinking: Any, effort: str | None) -> None:
    written = sent("openai-chat", "anthropic-messages", ask(reasoning_effort="high", max_tokens=20_000), model)
    assert written.get("thinking") == thinking
    assert written.get("output_config", {}).get("effort") == effort


def test_a_budget_that_does_not_fit_is_no_thinking() -> None:
    written = sent("openai-chat", "anthropic-messages", ask(reasoning_effort="high", max_tokens=2_000), "claude-sonnet-4-5")
    assert "thinking" not in written


@pytest.mark.parametrize(("budget", "effort"), [(1_024, "low"), (4_097, "medium"), (30_000, "high")])
def test_a_budget_becomes_an_effort(budget: int, effort: str) -> None:
    body = ask(max_tokens=64_000, thinking={"type": "enabled", "budget_tokens": budget})
    assert sent("anthropic-messages", "openai-chat", body)["reasoning_effort"] == effort
    assert sent("anthropic-messages", "openai-responses", body)["reasoning"] == {"effort": effort}


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("", True),
        ("claude-sonnet-4-6", True),
        ("claude-3-haiku-20240307", True),
        ("claude-opus-4-20250514", True),
        ("minimax-m2", True),
        ("claude-opus-4-7", False),
        ("claude-opus-4-8-20260528", False),
        ("claude-sonnet-5", False),
    ],
)
def test_a_temperature_goes_to_models_that_have_one(model: str, kept: bool) -> None:
    written = sent("openai-chat", "anthropic-messages", ask(temperature=0, top_p=0.5), model)
    assert ("temperature" in written, "top_p" in written) == (kept, kept)


def test_no_thinking_beside_a_tool_that_must_be_called() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    written = sent("openai-chat", "anthropic-messages", ask(tools=[tool], tool_choice="required", reasoning_effort="low"))
    assert "thinking" not in written
    assert written["tool_choice"] == {"type": "any"}


def test_only_the_tools_that_a_choice_allows_are_offered() -> None:
    tools = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("f", "g")]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]}
    written = sent("openai-chat", "anthropic-messages", ask(tools=tools, tool_choice={"type": "allowed_tools", "allowed_tools": allowed}))
    assert [tool["name"] for tool in written["tools"]] == ["g"]
    assert written["tool_choice"] == {"type": "any"}


def test_a_schema_for_output_is_closed_for_anthropic_and_strict_for_openai_only_if_it_can_be() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object", "properties": {}}}}
    given = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    written = sent("openai-chat", "anthropic-messages", ask(response_format=given))["output_config"]["format"]["schema"]
    assert written["additionalProperties"] is False
    assert written["properties"]["a"]["additionalProperties"] is False
    back = sent(
        "anthropic-messages", "openai-responses", ask(max_tokens=99, output_config={"format": {"type": "json_schema", "schema": written}})
    )
    assert back["text"]["format"]["strict"] is False


def test_custom_tools_are_known_to_both_of_openais_formats() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    items = [
        {"role": "user", "content": "go"},
        {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "a"},
        {"type": "custom_tool_call_output", "call_id": "c", "output": "done"},
    ]
    body = {"model": "m", "input": items, "tools": [{"type": "custom", "name": "patch", "format": grammar}]}
    chat = sent("openai-responses", "openai-chat", body)
    assert chat["tools"][0]["custom"]["format"] == {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: /a/"}}
    assert chat["messages"][1]["tool_calls"][0]["custom"] == {"name": "patch", "input": "a"}
    back = sent("openai-chat", "openai-responses", chat)
    assert back["tools"] == body["tools"]
    assert back["input"][1] == {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "a"}


def test_a_long_user_id_is_told_by_its_digest() -> None:
    body = ask(max_tokens=99, metadata={"user_id": "u" * 65})
    user = sent("anthropic-messages", "openai-chat", body)["user"]
    assert len(user) == 64
    assert user != "u" * 64


def test_there_is_a_translation_between_different_conversations_only() -> None:
    assert all(between(caller, target) for caller, target in PAIRS)
    assert not any(between(name, name) for name in FORMATS)
    assert between("openai-embeddings", "openai-chat") is None
    assert between("openai-chat", "anthropic-count-tokens") is None


def test_a_result_goes_before_what_was_said_while_the_tool_ran() -> None:
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "a", "output": "1"}
    items = [{"role": "user", "content": "go"}, call, {"role": "user", "content": "hurry"}, result]
    messages = sent("openai-responses", "anthropic-messages", {"model": "m", "input": items})["messages"]
    assert [block["type"] for block in messages[2]["content"]] == ["tool_result", "text"]
