"""OpenAI Responses: what is read of a request, what its items mean, what a rewrite may touch."""

import json
from contextlib import suppress
from math import exp
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.events.usage import Usage
from holdfast.wire.call import Answer, Rewrite
from holdfast.wire.openai_responses import FORMAT

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(
    ["type", "text", "role", "content", "name", "arguments", "output", "input", "action", "image_url", "file_data", "summary", "refusal"]
)
TYPES = st.sampled_from(
    [
        *("message", "function_call", "custom_tool_call", "function_call_output", "reasoning", "shell_call", "web_search_call"),
        *("input_image", "input_file", "output_text", "refusal", "item_reference", "nobody_knows", "shell_call_output"),
    ]
)
ITEMS = st.recursive(JSON | TYPES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)

TEXT = {"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}
SAID = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [TEXT]}
CALLED = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "ls", "arguments": '{"path": "/tmp"}', "status": "completed"}
CUSTOM = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_2", "name": "patch", "input": "*** Begin Patch"}
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}], "encrypted_content": "gAAAA"}
SEARCHED = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}}
SHELL = {"type": "local_shell_call", "id": "s_1", "call_id": "call_3", "status": "completed"}
SHELL["action"] = {"type": "exec", "command": ["ls"], "env": {}}  # type: ignore[assignment]


def body(**fields: Any) -> bytes:
    request = {"model": "gpt-5.1", "input": "hi", **fields}
    return json.dumps({name: value for name, value in request.items() if value is not ...}, separators=(",", ":")).encode()


def digests(*items: Any) -> list[bytes]:
    return [turn.digest for turn in FORMAT.parse(body(input=list(items))).turns]


def response(*output: dict[str, Any], **fields: Any) -> dict[str, Any]:
    head = {"id": "resp_1", "object": "response", "created_at": 1.0, "status": "completed", "model": "gpt-5.1-2025", "tools": []}
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return {**head, "parallel_tool_calls": True, "tool_choice": "auto", "output": list(output), "usage": usage, **fields}


def answered(*output: dict[str, Any], **fields: Any) -> Answer:
    return FORMAT.answer(json.dumps(response(*output, **fields)).encode())


def test_a_request_is_read() -> None:
    items = [
        {"type": "message", "role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
    ]
    tools = [{"type": "custom", "name": "patch"}, {"type": "namespace", "name": "mcp", "tools": [{"type": "function", "name": "x"}]}]
    call = FORMAT.parse(
        body(input=items, instructions="be good", tools=tools, stream=True, store=False, max_output_tokens=500, user="u-1", new_field=[1])
    )
    assert (call.model, call.stream, call.max_output, call.user, call.unbounded) == ("gpt-5.1", True, 500, "u-1", "")
    assert [json.loads(bytes(raw)) for raw in call.messages] == items
    assert [turn.role for turn in call.turns] == ["developer", "user"]
    assert call.system is not None and bytes(call.system) == b'"be good"'
    assert call.tools is not None and json.loads(bytes(call.tools)) == tools
    assert sorted(json.loads(bytes(call.params))) == ["max_output_tokens", "model", "new_field", "store", "stream", "user"]


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"user": "a", "safety_identifier": "c"}, "a"),
        ({"metadata": {"user_id": "b", "other": "x"}, "safety_identifier": "c"}, "b"),
        ({"safety_identifier": "c", "metadata": None}, "c"),
        ({}, ""),
    ],
)
def test_the_user_is_found(fields: dict[str, Any], user: str) -> None:
    assert FORMAT.parse(body(**fields)).user == user


@pytest.mark.parametrize(
    ("tier", "read"), [("auto", ""), ("default", "default"), (None, ""), ("priority", "priority"), ("flex", "flex"), ("fast", "fast")]
)
def test_a_tier_with_a_price_of_its_own_is_read(tier: str | None, read: str) -> None:
    assert FORMAT.parse(body(service_tier=tier)).tier == read


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": ...}, "model"),
        ({"model": 3}, "model"),
        ({"model": ""}, "model"),
        ({"input": 5}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": 3, "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": 1}]}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "name": "a", "arguments": {}}]}, "input[0]"),
        ({"max_output_tokens": -5}, "max_output_tokens"),
        ({"max_output_tokens": 10**30}, "max_output_tokens"),
        ({"max_output_tokens": "many"}, "max_output_tokens"),
        ({"stream": 1}, "stream"),
        ({"tools": [5]}, "tools[0]"),
        ({"user": 5}, "user"),
    ],
)
def test_a_wrong_field_is_named(changed: dict[str, Any], param: str) -> None:
    with pytest.raises(MalformedRequest) as caught:
        FORMAT.parse(body(**changed))
    assert caught.value.param == param


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        FORMAT.parse(data)
    with pytest.raises(MalformedAnswer):
        FORMAT.answer(data)


@pytest.mark.parametrize("deep", ["[", '{"a":', '{"content":['])
def test_deep_nesting_is_malformed(deep: str) -> None:
    with pytest.raises(MalformedRequest):
        FORMAT.parse(b'{"model":"m","input":' + deep.encode() * 50_000)


@given(items=st.lists(ITEMS, max_size=4) | ITEMS, tools=ITEMS, extra=JSON)
def test_no_items_raise_anything_else(items: Any, tools: Any, extra: Any) -> None:
    data = body(input=items, tools=tools, metadata=extra)
    try:
        call = FORMAT.parse(data)
    except MalformedRequest:
        return
    assert len(call.turns) == len(call.messages)
    assert FORMAT.rewrite(data, call, Rewrite()) is data


@given(st.lists(ITEMS, max_size=4), JSON)
def test_no_answer_raises_anything_but_malformed_answer(output: Any, usage: Any) -> None:
    with suppress(MalformedAnswer):
        FORMAT.answer(json.dumps(response(usage=usage) | {"output": output}).encode())


def test_plain_text_is_one_message_of_the_user() -> None:
    plain = FORMAT.parse(body(input="caf\u00e9"))
    assert [turn.digest for turn in plain.turns] == digests({"role": "user", "content": [{"type": "input_text", "text": "caf\u00e9"}]})
    assert json.loads(bytes(plain.messages[0])) == {"role": "user", "content": "caf\u00e9"}


def test_the_same_item_in_other_words_is_the_same_turn() -> None:
    (said,) = digests({"role": "assistant", "content": "I look."})
    assert digests(SAID, SAID | {"id": None, "status": None, "phase": "commentary"}) == [said, said]
    assert digests({"type": "message", "role": "assistant", "content": [{"type": "input_text", "text": "I look. "}]}) == [said]
    (called,) = digests(CALLED)
    assert digests(CALLED | {"id": "other", "status": None, "namespace": "mcp", "call_id": "x", "arguments": '{"path":"/tmp"}'}) == [called]
    (result,) = digests({"type": "function_call_output", "call_id": "call_1", "output": "done"})
    assert digests({"type": "function_call_output", "call_id": "x", "output": [{"type": "input_text", "text": "done"}]}) == [result]
    (shell,) = digests(SHELL)
    assert digests(SHELL | {"action": {"command": ["ls"], "type": "exec", "env": {}, "timeout_ms": None, "user": None}}) == [shell]


def test_reasoning_keeps_its_place_without_a_digest() -> None:
    assert digests(THOUGHT, CALLED)[0] == b""
    assert len(FORMAT.parse(body(input=[THOUGHT, CALLED])).messages) == 2
    assert [turn.digest for turn in answered(THOUGHT, CALLED).turns] == digests(THOUGHT, CALLED)


def test_items_that_differ_are_other_turns() -> None:
    picture = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}
    other = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,BBBB"}]}
    result = {"type": "function_call_output", "output": "done"}
    shown = {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}}
    items = [SAID, CALLED, CALLED | {"name": "rm"}, CALLED | {"arguments": "{}"}, CUSTOM, SHELL, picture, other, result, shown, SEARCHED]
    assert len(set(digests(*items, {"role": "user", "content": "I look."}, {"type": "nobody_knows"}))) == len(items) + 2


@pytest.mark.parametrize("dump", [{}, {"exclude_none": True}, {"exclude_unset": True}, {"mode": "json", "by_alias": True}])
def test_an_answer_comes_back_as_the_turns_it_was_given(dump: dict[str, Any]) -> None:
    refused = {
        "type": "message",
        "id": "msg_2",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "refusal", "refusal": "No."}],
    }
    output = [THOUGHT, SAID, SEARCHED, CALLED, CUSTOM, SHELL, refused]
    items = [item.model_dump(**dump) for item in Response.model_validate(response(*output, usage=None)).output]
    assert [turn.digest for turn in answered(*output).turns] == digests(*items)


def test_an_answer_is_read() -> None:
    scored = TEXT | {"logprobs": [{"token": "I", "logprob": -0.5, "bytes": [], "top_logprobs": []}, {"token": "x", "logprob": -0.1}]}
    answer = answered(THOUGHT, SAID | {"content": [scored]}, CALLED, CUSTOM)
    assert (answer.text, answer.reasoning, answer.finish_reason, answer.model) == ("I look.", "hm", "completed", "gpt-5.1-2025")
    assert answer.chosen_action == "ls+patch"
    assert [(call.id, call.arguments) for call in answer.tool_calls] == [("call_1", '{"path": "/tmp"}'), ("call_2", "*** Begin Patch")]
    assert answer.confidence == pytest.approx(exp(-0.3))
    assert answered(SAID).confidence is None


def test_an_answer_that_is_cut_short_says_why() -> None:
    cut = answered(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert (cut.finish_reason, cut.complete) == ("max_output_tokens", True)
    assert not answered(status="in_progress").complete


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Usage(input=10, output=5)),
        (
            {
                "usage": {
                    "input_tokens": 100,
                    "input_tokens_details": {
                        "cached_tokens": 60,
                        "cache_write_tokens": 30,
                        "cache_write_tokens_details": {"ttl_30m_tokens": 20, "ttl_12h_tokens": 10},
                    },
                    "output_tokens": 50,
                    "output_tokens_details": {"reasoning_tokens": 40},
                    "total_tokens": 150,
                }
            },
            Usage(input=100, output=50, cached_input=60, cache_write=30, cache_write_short=20, reasoning=40),
        ),
        ({"usage": {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": None}}, Usage(input=1, output=2)),
        ({"tool_usage": {"web_search": {"num_requests": 3}}}, Usage(input=10, output=5, web_searches=3)),
        ({"usage": None}, None),
        ({"usage": {"input_tokens": -1, "output_tokens": 5}}, None),
        ({"usage": {"input_tokens": 10, "output_tokens": 10**9 + 1}}, None),
        ({"usage": {"output_tokens": 5}}, None),
    ],
)
def test_usage_is_normalised(fields: dict[str, Any], expected: Usage | None) -> None:
    assert answered(SAID, **fields).usage == expected


def test_searches_are_counted_where_the_provider_does_not() -> None:
    usage = answered(SEARCHED, SEARCHED, SAID).usage
    assert usage is not None and usage.web_searches == 2


def test_inline_pictures_count_by_a_fixed_bound() -> None:
    def bound(data: str, model: str = "gpt-5.1", detail: str = "auto") -> int:
        picture = {"type": "input_image", "image_url": f"data:image/png;base64,{data}", "detail": detail}
        shown = {"type": "computer_call_output", "output": picture | {"type": "computer_screenshot"}}
        return FORMAT.parse(body(model=model, input=[{"role": "user", "content": [picture]}, shown])).input_bound

    assert bound("A" * 1_000_000) == bound("A") > 2 * 6_000
    assert bound("A", "gpt-4o-mini") > 90_000 and bound("A", detail="original") > 48_000


@given(st.text(), st.text())
def test_the_input_bound_is_above_every_byte_of_text(text: str, other: str) -> None:
    data = json.dumps({"model": "m", "input": text, "instructions": other}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert FORMAT.parse(data).input_bound >= len(text.encode()) + len(other.encode()) + 500


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": "resp_0"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"background": True},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "file_search", "vector_store_ids": []}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "image_generation"}]},
        {"tools": [{"type": "computer_use_preview"}]},
        {"tools": [{"type": "mcp", "server_label": "x"}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        {"tools": [{"type": "tool_search"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]},
        {"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}]},
    ],
)
def test_what_the_provider_runs_or_keeps_has_no_bound(fields: dict[str, Any]) -> None:
    call = FORMAT.parse(body(**fields))
    assert call.unbounded or call.hosted or call.continues


@pytest.mark.parametrize(
    "fields",
    [
        {"previous_response_id": None, "conversation": None, "background": False, "prompt": None},
        {"tools": [{"type": "shell", "environment": {"type": "local"}}, {"type": "tool_search", "execution": "client"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}]},
        {"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "namespace"}, {"type": "custom"}]}]},
    ],
)
def test_what_the_agent_runs_has_a_bound(fields: dict[str, Any]) -> None:
    call = FORMAT.parse(body(**fields))
    assert (call.unbounded, call.hosted, call.continues) == ("", (), "")


def test_a_history_that_the_provider_keeps_is_named() -> None:
    assert FORMAT.parse(body(previous_response_id="resp_0")).conversation == "resp_0"
    assert FORMAT.parse(body(conversation={"id": "conv_1"})).conversation == "conv_1"
    assert FORMAT.parse(body(conversation="conv_1")).conversation == "conv_1"


def rewritten(data: bytes, **changes: Any) -> bytes:
    return FORMAT.rewrite(data, FORMAT.parse(data), Rewrite(**changes))


def test_a_rewrite_touches_only_what_it_must() -> None:
    data = body(max_output_tokens=1000, temperature=1.0, instructions="caf\\u00e9")
    assert rewritten(data) is data
    assert rewritten(data, model="gpt-5.1", max_output=1000) is data
    assert rewritten(data, max_output=2000) is data
    assert rewritten(data, model="other") == data.replace(b"gpt-5.1", b"other")
    assert rewritten(data, max_output=20) == data.replace(b"1000", b"20")
    assert rewritten(body(), max_output=20) == body()[:-1] + b',"max_output_tokens":20}'


def test_what_is_sent_is_what_was_bounded_though_a_field_comes_twice() -> None:
    data = body(max_output_tokens=9)[:-1] + b',"max_output_tokens":50}'
    call = FORMAT.parse(data)
    assert call.max_output == 50
    assert json.loads(FORMAT.rewrite(data, call, Rewrite()), object_pairs_hook=list)[2:] == [("max_output_tokens", 50)]


def test_reasoning_that_the_provider_keeps_counts_as_the_longest_output_up_to_a_whole_context() -> None:
    def bound(**fields: Any) -> int:
        items = [{"role": "user", "content": "x"}, *[{"type": "reasoning", "id": "rs_1", "summary": [], **fields}] * 20]
        return FORMAT.parse(body(input=items)).input_bound

    assert 1_000_000 <= bound() <= 1_050_000
    assert bound(encrypted_content="gAAAA") < 5_000


def test_a_recording_counts_by_its_length() -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "//s" + "A" * 100_000, "format": "mp3"}}
    assert FORMAT.parse(body(input=[{"role": "user", "content": [audio]}])).input_bound < 5_000


def test_what_the_provider_ran_and_the_tier_that_served_are_read() -> None:
    answer = answered(SAID, CALLED, SEARCHED, {"type": "mcp_list_tools"}, service_tier="priority")
    assert answer.hosted == ("web_search", "mcp_list_tools")
    assert answer.usage is not None and answer.usage.tier == "priority"


@pytest.mark.parametrize(("total", "output"), [(15, 5), (115, 105), (3, 5), (None, 5), (-7, 5), (10**20, 5)])
def test_reasoning_outside_the_output_is_found_in_the_total(total: Any, output: int) -> None:
    answer = answered(usage={"input_tokens": 10, "output_tokens": 5, "total_tokens": total})
    assert answer.usage is not None and answer.usage.output == output
