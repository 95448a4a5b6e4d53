"""What has no place at a target is refused by its name in the caller's request; what is left out changes nothing and says why."""

from typing import Any

import msgspec
import pytest

from holdfast.errors import MalformedRequest
from holdfast.wire.translation import Untranslatable, anthropic_fields, chat_fields, responses_fields
from holdfast.wire.translation.between import FORMATS, between
from holdfast.wire.translation.fields import Table

TABLES: dict[tuple[str, str], Table] = {
    ("openai-chat", "openai-responses"): chat_fields.TO_RESPONSES,
    ("openai-chat", "anthropic-messages"): chat_fields.TO_ANTHROPIC,
    ("openai-responses", "openai-chat"): responses_fields.TO_CHAT,
    ("openai-responses", "anthropic-messages"): responses_fields.TO_ANTHROPIC,
    ("anthropic-messages", "openai-chat"): anthropic_fields.TO_CHAT,
    ("anthropic-messages", "openai-responses"): anthropic_fields.TO_RESPONSES,
}
RULES = [(pair, name, rule) for pair, table in TABLES.items() for name, rule in table.items()]


def body(caller: str, **more: Any) -> dict[str, Any]:
    said = [{"role": "user", "content": "hi"}]
    plain: dict[str, Any] = {"model": "m", "input" if caller == "openai-responses" else "messages": said}
    return plain | ({"max_tokens": 99} if caller == "anthropic-messages" else {}) | more


def send(caller: str, target: str, **more: Any) -> dict[str, Any]:
    translation = between(caller, target)
    assert translation is not None
    sent: dict[str, Any] = msgspec.json.decode(translation.request(msgspec.json.encode(body(caller, **more))))
    return sent


@pytest.mark.parametrize(("pair", "name"), [(pair, name) for pair, name, rule in RULES if rule.kind == "refused"])
def test_a_field_without_a_place_is_refused_by_its_name(pair: tuple[str, str], name: str) -> None:
    with pytest.raises(Untranslatable) as refused:
        send(*pair, **{name: {"any": "value"}})
    assert refused.value.param == name
    assert str(refused.value).startswith(f"{name} cannot be translated to {pair[1]}: ")


@pytest.mark.parametrize(
    ("pair", "name", "rule"), [rule for rule in RULES if rule[2].unless], ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_value_that_asks_for_nothing_is_not_refused(pair: tuple[str, str], name: str, rule: Any) -> None:
    for value in rule.unless:
        assert send(*pair, **{name: msgspec.Raw(value)}) == send(*pair)
    assert send(*pair, **{name: None}) == send(*pair)


@pytest.mark.parametrize(
    ("pair", "name", "rule"), [rule for rule in RULES if rule[2].kind == "left out"], ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_field_that_is_left_out_leaves_no_trace_and_has_a_reason(pair: tuple[str, str], name: str, rule: Any) -> None:
    assert send(*pair, **{name: {"any": "value"}}) == send(*pair)
    assert rule.reason


@pytest.mark.parametrize("pair", TABLES)
def test_a_field_that_nobody_knows_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(Untranslatable) as refused:
        send(*pair, brand_new=1)
    assert refused.value.param == "brand_new"


def user(*content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


CUSTOM = {"type": "custom", "custom": {"name": "f"}}
CHAT: list[tuple[str, dict[str, Any]]] = [
    ("messages[0].name", {"messages": [{"role": "user", "content": "hi", "name": "bob"}]}),
    ("messages[0].audio", {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}),
    ("messages[0].function_call", {"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}]}),
    ("messages[0].role", {"messages": [{"role": "function", "name": "f", "content": "1"}]}),
    ("messages[0].brand_new", {"messages": [{"role": "user", "content": "hi", "brand_new": 1}]}),
    ("messages[0].content[0]", {"messages": [user({"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}})]}),
    ("messages[0].content[0].file.file_id", {"messages": [user({"type": "file", "file": {"file_id": "file-1"}})]}),
    ("messages[0].content[0].brand_new", {"messages": [user({"type": "text", "text": "a", "brand_new": 1})]}),
    ("messages[0].content[0].image_url.brand_new", {"messages": [user({"type": "image_url", "image_url": {"url": "u", "brand_new": 1}})]}),
    ("messages[0].content[0]", {"messages": [user({"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AAAA"}})]}),
    ("tools[0]", {"tools": [{"type": "web_search"}]}),
    ("tools[0].function.brand_new", {"tools": [{"type": "function", "function": {"name": "f", "brand_new": 1}}]}),
    ("tool_choice", {"tool_choice": {"type": "web_search"}}),
    ("stream_options.brand_new", {"stream_options": {"brand_new": 1}}),
    ("response_format", {"response_format": {"type": "grammar"}}),
]
CHAT_TO_ANTHROPIC: list[tuple[str, dict[str, Any]]] = [
    ("tools[0]", {"tools": [CUSTOM]}),
    ("temperature", {"temperature": 1.5}),
    ("response_format", {"response_format": {"type": "json_object"}}),
    ("messages[1]", {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "so"}]}),
    ("messages[0].content[0]", {"messages": [user({"type": "file", "file": {"file_data": "data:audio/wav;base64,AAAA"}})]}),
]
RESPONSES: list[tuple[str, dict[str, Any]]] = [
    ("input[0]", {"input": [{"type": "item_reference", "id": "msg_1"}]}),
    ("input[0]", {"input": [{"type": "web_search_call", "id": "ws_1"}]}),
    ("input[0]", {"input": [{"type": "local_shell_call", "call_id": "c"}]}),
    ("input[0].content[0].file_id", {"input": [user({"type": "input_image", "file_id": "file-1"})]}),
    ("input[0].content[0]", {"input": [user({"type": "input_audio", "input_audio": {}})]}),
    ("input[0].brand_new", {"input": [{"role": "user", "content": "hi", "brand_new": 1}]}),
    ("tools[0].type", {"tools": [{"type": "web_search"}]}),
    ("tools[0].type", {"tools": [{"type": "local_shell"}]}),
    ("tools[0].defer_loading", {"tools": [{"type": "function", "name": "f", "defer_loading": True}]}),
    ("include[0]", {"include": ["message.output_text.logprobs"]}),
    ("reasoning.mode", {"reasoning": {"mode": "pro"}}),
    ("reasoning.context", {"reasoning": {"context": "all_turns"}}),
    ("text.brand_new", {"text": {"brand_new": 1}}),
    ("tool_choice", {"tool_choice": {"type": "web_search_preview"}}),
]
ANTHROPIC: list[tuple[str, dict[str, Any]]] = [
    ("messages[1]", {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "{"}]}),
    ("messages[0].content[0].source", {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]}),
    ("messages[0].content[0].citations", {"messages": [user({"type": "document", "citations": {"enabled": True}})]}),
    (
        "messages[0].content[0].context",
        {"messages": [user({"type": "document", "context": "c", "source": {"type": "url", "url": "https://example.com/a.pdf"}})]},
    ),
    ("messages[0].content[0]", {"messages": [user({"type": "search_result"})]}),
    ("messages[0].content[0]", {"messages": [user({"type": "container_upload", "file_id": "f"})]}),
    ("messages[0].content[0].brand_new", {"messages": [user({"type": "text", "text": "a", "brand_new": 1})]}),
    ("tools[0].type", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
    ("tools[0].type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
    ("tools[0].defer_loading", {"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}),
    ("tools[0].input_examples", {"tools": [{"name": "f", "input_schema": {}, "input_examples": [{}]}]}),
    ("thinking.type", {"thinking": {"type": "between_tools"}}),
    ("output_config.brand_new", {"output_config": {"brand_new": 1}}),
    ("metadata.brand_new", {"metadata": {"brand_new": 1}}),
]
NESTED = [
    *[("openai-chat", target, *case) for target in ("openai-responses", "anthropic-messages") for case in CHAT],
    *[("openai-chat", "anthropic-messages", *case) for case in CHAT_TO_ANTHROPIC],
    *[("openai-responses", target, *case) for target in ("openai-chat", "anthropic-messages") for case in RESPONSES],
    ("openai-responses", "anthropic-messages", "text.verbosity", {"text": {"verbosity": "low"}}),
    *[("anthropic-messages", target, *case) for target in ("openai-chat", "openai-responses") for case in ANTHROPIC],
    (
        "anthropic-messages",
        "openai-chat",
        "messages[0].content[0]",
        {"messages": [user({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}})]},
    ),
]


@pytest.mark.parametrize(("caller", "target", "param", "more"), NESTED)
def test_what_has_no_place_deep_inside_is_refused_by_where_it_stands(caller: str, target: str, param: str, more: dict[str, Any]) -> None:
    with pytest.raises(Untranslatable) as refused:
        send(caller, target, **more)
    assert refused.value.param == param
    assert target in str(refused.value)


@pytest.mark.parametrize(
    ("caller", "param", "more"),
    [
        ("openai-chat", "messages", {"messages": "hi"}),
        ("openai-chat", "messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
        ("openai-chat", "temperature", {"temperature": "hot"}),
        ("openai-chat", "reasoning_effort", {"reasoning_effort": "enormous"}),
        ("openai-chat", "tool_choice", {"tool_choice": "sometimes"}),
        ("openai-responses", "input[0]", {"input": [5]}),
        ("openai-responses", "reasoning.effort", {"reasoning": {"effort": "enormous"}}),
        ("anthropic-messages", "max_tokens", {"max_tokens": "9"}),
        ("anthropic-messages", "output_config.effort", {"output_config": {"effort": "enormous"}}),
        ("anthropic-messages", "messages[0].content[0]", {"messages": [{"role": "user", "content": [5]}]}),
    ],
)
def test_a_request_that_is_none_is_malformed_where_it_is(caller: str, param: str, more: dict[str, Any]) -> None:
    for target in FORMATS:
        if target != caller:
            with pytest.raises(MalformedRequest) as malformed:
                send(caller, target, **more)
            assert malformed.value.param == param


@pytest.mark.parametrize("pair", TABLES)
@pytest.mark.parametrize("junk", [b"", b"[]", b"\xff", b"{", b"[" * 100_000])
def test_junk_is_malformed(pair: tuple[str, str], junk: bytes) -> None:
    translation = between(*pair)
    assert translation is not None
    with pytest.raises(MalformedRequest):
        translation.request(junk)
