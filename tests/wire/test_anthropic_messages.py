"""Anthropic Messages: what is read of a request, what its history means, what a rewrite may touch."""

import json
from contextlib import suppress
from typing import Any

import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.events.usage import Usage
from holdfast.wire.anthropic_messages import FORMAT
from holdfast.wire.call import Refusal, Rewrite

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["type", "text", "role", "content", "name", "input", "source", "data", "url", "file_id", "id"])
TYPES = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "content", "user", "nobody_knows"])
BLOCKS = st.recursive(JSON | TYPES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


def body(**fields: Any) -> bytes:
    request = {"model": "claude-sonnet-4-5", "max_tokens": 1000, "messages": [{"role": "user", "content": "hi"}], **fields}
    return json.dumps({name: value for name, value in request.items() if value is not ...}, separators=(",", ":")).encode()


def said(content: Any, role: str = "assistant") -> bytes:
    return FORMAT.parse(body(messages=[{"role": role, "content": content}])).turns[0].digest


def message(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "output_tokens": 5}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {**head, "content": list(content), "stop_reason": "end_turn", "stop_sequence": None, "usage": usage, **fields}


def test_a_request_is_read() -> None:
    call = FORMAT.parse(
        body(
            stream=True,
            system=[{"type": "text", "text": "be good", "cache_control": {"type": "ephemeral"}}],
            tools=[{"name": "ls", "input_schema": {}}],
            metadata={"user_id": "u-1"},
            temperature=0.5,
            some_new_field={"x": 1},
        )
    )
    assert (call.model, call.stream, call.max_output, call.user, call.unbounded) == ("claude-sonnet-4-5", True, 1000, "u-1", "")
    assert json.loads(bytes(call.messages[0])) == {"role": "user", "content": "hi"}
    assert call.system is not None and json.loads(bytes(call.system))[0]["text"] == "be good"
    assert call.tools is not None and json.loads(bytes(call.tools)) == [{"name": "ls", "input_schema": {}}]
    assert sorted(json.loads(bytes(call.params))) == ["max_tokens", "metadata", "model", "some_new_field", "stream", "temperature"]


def test_a_body_with_line_breaks_is_recorded_without_them() -> None:
    call = FORMAT.parse(json.dumps(json.loads(body(tools=[{"name": "a"}])), indent=2).encode())
    assert call.tools is not None
    assert all(b"\n" not in bytes(raw) for raw in (*call.messages, call.tools, call.params))


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": ...}, "model"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"messages": ...}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": 7, "content": "b"}]}, "messages[1].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": 5}]}]}, "messages[0].content"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 10**40}, "max_tokens"),
        ({"max_tokens": 2**31}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"tools": {}}, "tools"),
    ],
)
def test_a_wrong_field_is_named(changed: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        FORMAT.parse(body(**changed))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"nonsense",
        b'{"model":"\xff"}',
        b"\xef\xbb\xbf{}",
        b'{"a":' * 100_000,
        body(messages=...)[:-1] + b',"messages":[{"role":"user","content":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
        body(messages=...)[:-1] + b',"messages":[{"role":"user","content":"\\ud800"}]}',
        body(max_tokens=...)[:-1] + b',"max_tokens":1' + b"0" * 5000 + b"}",
    ],
)
def test_what_is_not_a_request_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        FORMAT.parse(data)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        FORMAT.parse(data)
    with pytest.raises(MalformedAnswer):
        FORMAT.answer(data)


@given(content=BLOCKS, tools=BLOCKS, thinking=JSON, extra=JSON)
def test_no_content_raises_anything_else(content: Any, tools: Any, thinking: Any, extra: Any) -> None:
    data = body(messages=[{"role": "user", "content": content}], tools=tools, thinking=thinking, metadata=extra)
    try:
        call = FORMAT.parse(data)
    except MalformedRequest:
        return
    assert FORMAT.rewrite(data, call, Rewrite()) is data
    FORMAT.rewrite(data, call, Rewrite(max_output=1))


@given(BLOCKS, JSON)
def test_no_answer_raises_anything_but_malformed_answer(content: Any, usage: Any) -> None:
    with suppress(MalformedAnswer):
        FORMAT.answer(json.dumps(message(usage=usage) | {"content": content}).encode())


def test_the_same_message_in_other_words_is_the_same_turn() -> None:
    block = {"type": "text", "text": "hello"}
    assert (
        said("hello") == said([block]) == said([{**block, "cache_control": {"type": "ephemeral"}}]) == said([{**block, "citations": None}])
    )
    assert said("hello") == said(
        [{"type": "thinking", "thinking": "hm", "signature": "x"}, block, {"type": "redacted_thinking", "data": "y"}]
    )
    assert said("hello") == said([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo \n"}])
    use = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"b": 1, "a": [2]}}
    assert said([use]) == said([{**use, "id": "toolu_2", "caller": {"type": "direct"}, "input": {"a": [2], "b": 1}}])
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}
    assert said([result], "user") == said([{**result, "content": [block | {"text": "done"}], "is_error": False}], "user")


def test_messages_that_differ_are_other_turns() -> None:
    use = {"type": "tool_use", "id": "t", "name": "ls", "input": {"a": 1}}
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    other = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "BBBB"}}
    different = ["hello", "", [use], [use | {"name": "rm"}], [use | {"input": {"a": 2}}], [picture], [other], [{"type": "nobody_knows"}]]
    digests = {said(content) for content in different} | {said("hello", "user"), said("hello", "system")}
    assert len(digests) == len(different) + 2


@pytest.mark.parametrize("dump", [{}, {"exclude_none": True}, {"exclude_unset": True}, {"mode": "json", "by_alias": True}])
def test_an_answer_comes_back_as_the_turn_it_was_given(dump: dict[str, Any]) -> None:
    sent = message(
        {"type": "thinking", "thinking": "let me think", "signature": "sig"},
        {"type": "text", "text": "I will look.\n", "citations": None},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "/tmp", "deep": None, "n": 1.0}},
        {"type": "tool_use", "id": "toolu_2", "name": "pwd", "input": {}},
        stop_reason="tool_use",
    )
    answer = FORMAT.answer(json.dumps(sent).encode())
    content = [block.model_dump(**dump) for block in Message.model_validate(sent).content]
    assert [turn.digest for turn in answer.turns] == [said(content)]
    assert said([block for block in content if block["type"] != "thinking"]) == said(content)


def test_an_answer_is_read() -> None:
    answer = FORMAT.answer(
        json.dumps(
            message(
                {"type": "thinking", "thinking": "first", "signature": "s"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"path": "/"}},
                {"type": "tool_use", "id": "toolu_2", "name": "pwd", "input": {}},
                stop_reason="tool_use",
            )
        ).encode()
    )
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.response_id) == ("I look.", "first", "tool_use", "msg_1")
    assert answer.chosen_action == "ls+pwd"
    assert [(call.id, json.loads(call.arguments)) for call in answer.tool_calls] == [("toolu_1", {"path": "/"}), ("toolu_2", {})]
    assert answer.usage == Usage(input=10, output=5) and answer.complete and answer.confidence is None


def test_a_refusal_of_the_model_is_one() -> None:
    details = {"type": "refusal", "category": "bio", "explanation": "No."}
    assert FORMAT.answer(json.dumps(message(stop_reason="refusal", stop_details=details)).encode()).refusal == "No."
    said_no = message({"type": "text", "text": "I cannot."}, stop_reason="refusal")
    assert FORMAT.answer(json.dumps(said_no).encode()).chosen_action == "refusal"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, Usage(input=10, output=5)),
        (
            {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 1000, "output_tokens": 5},
            Usage(input=1110, output=5, cached_input=100, cache_write=1000),
        ),
        (
            {
                "input_tokens": 1,
                "cache_creation_input_tokens": 30,
                "cache_read_input_tokens": None,
                "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
                "output_tokens": 7,
                "output_tokens_details": {"thinking_tokens": 6},
                "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
                "service_tier": "standard",
            },
            Usage(input=31, output=7, cache_write=30, cache_write_short=20, reasoning=6, web_searches=2),
        ),
        (None, None),
        ({"input_tokens": -1, "output_tokens": 5}, None),
        ({"input_tokens": 1, "output_tokens": "many"}, None),
        ({"input_tokens": 1, "output_tokens": 10**9 + 1}, None),
    ],
)
def test_usage_is_normalised(usage: Any, expected: Usage | None) -> None:
    assert FORMAT.answer(json.dumps(message(usage=usage)).encode()).usage == expected


def test_inline_pictures_count_by_a_fixed_bound() -> None:
    def bound(data: str) -> int:
        picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}
        return FORMAT.parse(
            body(messages=[{"role": "user", "content": [picture, {"type": "tool_result", "content": [picture]}]}])
        ).input_bound

    assert bound("A" * 1_000_000) == bound("A") > 2 * 6_000
    assert bound("A") < 20_000


def test_inline_documents_count_by_their_size_up_to_a_context_window() -> None:
    def bound(data: str) -> int:
        document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}
        return FORMAT.parse(body(messages=[{"role": "user", "content": [document]}])).input_bound

    assert bound("A" * 20_000) - bound("A" * 10_000) == 30_000
    assert bound("A" * 1_000_000) == bound("A" * 500_000) < 1_010_000
    assert bound("A") > 10_000


@given(st.text(), st.lists(st.text(), max_size=5), st.text())
def test_the_input_bound_is_above_every_byte_of_text(text: str, more: list[str], system: str) -> None:
    history = [{"role": "user", "content": text}, *({"role": "user", "content": [{"type": "text", "text": one}]} for one in more)]
    request = {"model": "m", "messages": history, "system": system, "tools": [{"name": "t", "description": text, "input_schema": {}}]}
    data = json.dumps(request, ensure_ascii=False).encode("utf-8", "surrogatepass")
    said_bytes = sum(len(one.encode()) for one in (text, text, system, *more))
    assert FORMAT.parse(data).input_bound >= said_bytes + 1_000


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_execution_20250825", "name": "x"}]},
        {"tools": [{"type": "web_fetch_20250910", "name": "x"}]},
        {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
        {"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]},
        {"container": "container_1"},
        {"fallbacks": [{"model": "x"}]},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "file", "file_id": "f"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]},
    ],
)
def test_what_the_provider_runs_or_keeps_has_no_bound(fields: dict[str, Any]) -> None:
    call = FORMAT.parse(body(**fields))
    assert call.unbounded or call.hosted or call.continues


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"name": "a", "input_schema": {}}, {"type": "custom", "name": "b"}, {"type": "bash_20250124", "name": "bash"}]},
        {"mcp_servers": [], "container": None},
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "hello"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "AAAA"}}]}]},
    ],
)
def test_what_the_agent_runs_has_a_bound(fields: dict[str, Any]) -> None:
    call = FORMAT.parse(body(**fields))
    assert (call.unbounded, call.hosted, call.continues) == ("", (), "")


@pytest.mark.parametrize(
    ("user_id", "user"),
    [
        ("alice", "alice"),
        ("user_abc_account_def_session_123", "user_abc_account_def"),
        ('{"device_id":"d","account_uuid":"","session_id":"s"}', "d"),
        ('{"device_id":"d","account_uuid":"a","session_id":"s"}', "a"),
        ("{broken", "{broken"),
    ],
)
def test_a_session_is_no_part_of_the_user(user_id: str, user: str) -> None:
    assert FORMAT.parse(body(metadata={"user_id": user_id})).user == user


def rewritten(data: bytes, **changes: Any) -> bytes:
    return FORMAT.rewrite(data, FORMAT.parse(data), Rewrite(**changes))


def test_a_rewrite_touches_only_what_it_must() -> None:
    data = body(temperature=1.0, messages=[{"role": "user", "content": "caf\\u00e9"}])
    assert rewritten(data) is data
    assert rewritten(data, model="claude-sonnet-4-5", max_output=1000) is data
    assert rewritten(data, max_output=2000) is data
    assert rewritten(data, model="other") == data.replace(b"claude-sonnet-4-5", b"other")
    assert rewritten(data, max_output=10) == data.replace(b'"max_tokens":1000', b'"max_tokens":10')
    without = body(max_tokens=...)
    assert rewritten(without, max_output=10) == without[:-1] + b',"max_tokens":10}'


def test_what_is_sent_is_what_was_bounded_though_a_field_comes_twice() -> None:
    data = body()[:-1] + b',"max_tokens":50}'
    call = FORMAT.parse(data)
    assert call.max_output == 50
    assert FORMAT.rewrite(data, call, Rewrite()).count(b"max_tokens") == 1


@pytest.mark.parametrize(
    ("budget", "bound", "thinking"),
    [
        (1500, 3000, {"type": "enabled", "budget_tokens": 1500, "display": "omitted"}),
        (1500, 1600, {"type": "enabled", "budget_tokens": 1500, "display": "omitted"}),
        (1500, 1500, {"type": "enabled", "budget_tokens": 1499, "display": "omitted"}),
        (1500, 1025, {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}),
        (1500, 1024, {"type": "disabled"}),
        (1500, 5, {"type": "disabled"}),
    ],
)
def test_a_lowered_bound_takes_the_thinking_budget_along(budget: int, bound: int, thinking: dict[str, Any]) -> None:
    data = body(max_tokens=4000, thinking={"type": "enabled", "budget_tokens": budget, "display": "omitted"})
    sent = json.loads(rewritten(data, max_output=bound))
    assert (sent["max_tokens"], sent["thinking"]) == (bound, thinking)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (503, "overloaded_error"),
        (500, "api_error"),
    ],
)
def test_a_refusal_has_the_type_of_its_status_and_the_numbers(status: int, kind: str) -> None:
    error = json.loads(
        FORMAT.refusal(Refusal(status=status, kind="spend_limit_reached", message="No.", details={"limit": 5}, param="model"))
    )
    assert error["type"] == "error"
    expected = {"type": kind, "message": "No.", "limit": 5, "param": "model", "details": {"error_code": "spend_limit_reached"}}
    assert error["error"] == expected


def test_speed_and_geography_are_asked_and_reported() -> None:
    call = FORMAT.parse(body(speed="fast", inference_geo="us"))
    assert (call.tier, call.geo) == ("fast", "us")
    usage = {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority", "speed": "fast", "inference_geo": "us"}
    answer = FORMAT.answer(json.dumps({"content": [], "usage": usage}).encode())
    assert answer.usage is not None
    assert (answer.usage.tier, answer.usage.geo) == ("fast", "us")


def test_what_the_provider_ran_is_read() -> None:
    blocks = [
        {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
        {"type": "mcp_tool_use", "id": "2", "name": "x", "input": {}},
        {"type": "tool_use", "id": "3", "name": "y", "input": {}},
    ]
    assert FORMAT.answer(json.dumps({"content": blocks}).encode()).hosted == ("web_search", "mcp")


def test_every_mcp_server_counts_once() -> None:
    server = {"type": "url", "url": "https://x", "name": "x"}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "x"}
    assert FORMAT.parse(body(mcp_servers=[server, server])).hosted == ("mcp_server", "mcp_server")
    assert FORMAT.parse(body(mcp_servers=[server], tools=[toolset])).hosted == ("mcp_toolset",)
