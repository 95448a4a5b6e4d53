"""Chat Completions requests: what the guard reads, what it refuses, what it changes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import MalformedRequest
from holdfast.wire.call import Call, Refusal, Rewrite
from holdfast.wire.openai_chat import FORMAT

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
USER = {"role": "user", "content": "hi"}
PIXEL = "data:image/png;base64," + "A" * 400_000


def request(**fields: Any) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": [USER], **fields}).encode()


def parse(**fields: Any) -> Call:
    return FORMAT.parse(request(**fields))


def digest(message: dict[str, Any]) -> bytes:
    return parse(messages=[message]).turns[0].digest


def assistant(**fields: Any) -> dict[str, Any]:
    return {"role": "assistant", **fields}


def function_call(arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "book", "arguments": arguments}}


def test_a_call_holds_what_the_guard_and_the_record_need() -> None:
    tools = [{"type": "function", "function": {"name": "book"}}]
    params = {"stream": True, "n": 3, "max_tokens": 50, "user": "u-1", "temperature": 0.5, "unknown": {"x": 1}}
    call = parse(tools=tools, **params)
    assert (call.model, call.stream, call.choices, call.max_output, call.user) == ("gpt-4o", True, 3, 150, "u-1")
    assert [turn.role for turn in call.turns] == ["user"]
    assert [json.loads(bytes(raw)) for raw in call.messages] == [USER]
    assert call.tools is not None
    assert json.loads(bytes(call.tools)) == tools
    assert json.loads(bytes(call.params)) == {"model": "gpt-4o", **params}
    assert (call.generates, call.unbounded, call.tier) == (True, "", "")


def test_what_goes_on_record_fits_on_a_line_however_the_body_was_written() -> None:
    body = json.dumps({"model": "m", "messages": [USER], "tools": [{"type": "function"}], "metadata": {"a": "b"}}, indent=2).encode()
    call = FORMAT.parse(body)
    assert call.tools is not None
    assert b"\n" not in b"".join(map(bytes, [*call.messages, call.tools, call.params]))
    assert call.input_bound >= len(body)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"null", None),
        (b"\xff\xfe{", None),
        (b'{"model":"m","messages":' + b"[" * 200_000, None),
        (b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}', None),
        (b'{"messages":[{"role":"user"}]}', "model"),
        (b'{"model":"m"}', "messages"),
        (request(model=""), "model"),
        (request(model=4), "model"),
        (request(messages=[]), "messages"),
        (request(messages=None), "messages"),
        (request(messages={}), "messages"),
        (request(messages=[{"content": "x"}]), "messages[0].role"),
        (request(messages=[USER, {"role": 1}]), "messages[1].role"),
        (request(messages=[{"role": "user", "content": 7}]), "messages[0].content"),
        (request(messages=[{"role": "user", "content": [{"type": "text", "text": 7}]}]), "messages[0].content[0].text"),
        (request(messages=[assistant(tool_calls=[{"function": {"name": 1}}])]), "messages[0].tool_calls[0].function.name"),
        (request(max_tokens=-2), "max_tokens"),
        (request(max_tokens="10"), "max_tokens"),
        (request(max_completion_tokens=1.5), "max_completion_tokens"),
        (request(max_completion_tokens=10**30), "max_completion_tokens"),
        (request(n=0), "n"),
        (request(n=True), "n"),
        (request(stream="yes"), "stream"),
        (request(stream_options=[]), "stream_options"),
        (request(tools={}), "tools"),
        (request(functions=1), "functions"),
    ],
)
def test_a_malformed_request_is_refused_by_the_name_of_its_field(body: bytes, param: str | None) -> None:
    with pytest.raises(MalformedRequest) as caught:
        FORMAT.parse(body)
    assert caught.value.param == param


@given(
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["model", "messages", "tools", "max_tokens", "n", "stream", "stream_options", "metadata", "user", "audio"]), JSON
    ).map(lambda fields: request(**fields))
    | st.lists(st.fixed_dictionaries({"role": st.just("user")}, optional={"content": JSON, "tool_calls": JSON, "function_call": JSON})).map(
        lambda messages: request(messages=messages)
    )
)
def test_parsing_raises_nothing_but_malformed_request(body: bytes) -> None:
    try:
        call = FORMAT.parse(body)
    except MalformedRequest:
        return
    assert FORMAT.rewrite(body, call, Rewrite()) is body
    FORMAT.rewrite(body, call, Rewrite(model="x", max_output=1, usage_in_stream=True))
    FORMAT.stream(call, Rewrite(usage_in_stream=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"role": "user", "content": "a b"}, {"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]}),
        ({"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}], "name": "x"}),
        ({"role": "system", "content": "a"}, {"role": "developer", "content": "a"}),
        ({"role": "tool", "content": "a"}, {"role": "function", "content": "a", "name": "f"}),
        (assistant(), assistant(content="")),
        (assistant(content=None), assistant(content=[], tool_calls=None, refusal=None, function_call=None, audio=None)),
        (assistant(refusal="no"), assistant(content=[{"type": "refusal", "refusal": "no"}])),
        (assistant(content="no"), assistant(refusal="no")),
        (assistant(content="a", reasoning_content="hm"), assistant(content="a")),
        (assistant(tool_calls=[function_call('{"a": 1, "b": 2.0}')]), assistant(tool_calls=[function_call('{"b":2,"a":1}', "id-2")])),
        (assistant(tool_calls=[function_call("{}")]), assistant(function_call={"name": "book", "arguments": "{}"})),
    ],
)
def test_rewritten_history_means_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (USER, {"role": "assistant", "content": "hi"}),
        (USER, {"role": "user", "content": "ho"}),
        (assistant(tool_calls=[function_call('{"a":1}')]), assistant(tool_calls=[function_call('{"a":2}')])),
        (assistant(tool_calls=[function_call("{}")]), assistant(content="book")),
        (assistant(tool_calls=[function_call("{}")]), assistant(tool_calls=[function_call("{}"), function_call("{}")])),
        *(
            ({"role": "user", "content": [one]}, {"role": "user", "content": [other]})
            for one, other in (
                ({"type": "image_url", "image_url": {"url": "a"}}, {"type": "image_url", "image_url": {"url": "b"}}),
                ({"type": "file", "file": {"file_id": "a"}}, {"type": "file", "file": {"file_id": "b"}}),
                ({"type": "input_audio", "input_audio": {"data": "a"}}, {"type": "input_audio", "input_audio": {"data": "b"}}),
            )
        ),
        (assistant(audio={"id": "a"}), assistant(audio={"id": "b"})),
        (assistant(content="", audio={"id": "a"}), assistant(content="")),
    ],
)
def test_history_of_another_meaning_differs(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest(one) != digest(other)


@given(texts=st.lists(TEXT, min_size=1, max_size=5), ascii_only=st.booleans())
def test_the_input_bound_is_never_below_the_bytes_of_the_texts(texts: list[str], ascii_only: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ascii_only).encode()
    assert FORMAT.parse(body).input_bound >= sum(len(text.encode()) + 8 for text in texts)


@pytest.mark.parametrize("image", [{"url": PIXEL}, {"url": PIXEL, "detail": "high"}, PIXEL, {"url": "https://example.com/a.png"}])
def test_an_image_counts_by_a_fixed_bound_not_by_its_bytes(image: object) -> None:
    call = parse(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": image}]}])
    assert 6_500 <= call.input_bound <= 8_000
    assert call.unbounded == ""


def test_images_count_one_by_one_and_dearer_where_they_are() -> None:
    def bound(model: str, *details: str) -> int:
        parts = [{"type": "image_url", "image_url": {"url": PIXEL, "detail": detail}} for detail in details]
        return parse(model=model, messages=[{"role": "user", "content": parts}]).input_bound

    assert bound("gpt-4o", "high", "high", "high") >= 3 * 6_500
    assert bound("gpt-5.4", "original") >= 25_000
    assert bound("gpt-4o-mini-2024-07-18", "high") >= 48_169


def test_an_inline_document_has_a_bound() -> None:
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 1_000, "filename": "a.pdf"}}
    call = parse(messages=[{"role": "user", "content": [file]}])
    assert call.unbounded == ""
    assert call.input_bound >= 10_000


@pytest.mark.parametrize(
    "fields",
    [
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
        {"search_parameters": {"mode": "auto"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["text", "audio"]},
        {"tools": [{"type": "function"}, {"type": "browser_search"}]},
        {"model": "gpt-4o-search-preview"},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1", "file_data": "AAAA"}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "https://example.com/v"}}]}]},
        {"messages": [USER, assistant(audio={"id": "audio_1"})]},
    ],
)
def test_what_cannot_be_bounded_says_why(fields: dict[str, Any]) -> None:
    call = parse(**fields)
    assert call.unbounded or call.hosted


@pytest.mark.parametrize(
    "fields", [{"web_search_options": None}, {"plugins": []}, {"tools": [{"type": "custom"}, {}]}, {"audio": None, "tools": None}]
)
def test_fields_that_are_off_do_not_unbind_a_call(fields: dict[str, Any]) -> None:
    call = parse(**fields)
    assert (call.unbounded, call.hosted) == ("", ())


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({}, ""),
        ({"user": "a", "metadata": {"user_id": "b"}, "safety_identifier": "c"}, "a"),
        ({"user": "", "metadata": {"user_id": "b", "user": "x"}}, "b"),
        ({"metadata": {"user_id": 7, "user": "b"}}, "b"),
        ({"metadata": {"end_user": "b"}, "safety_identifier": "c"}, "b"),
        ({"user": None, "metadata": None, "safety_identifier": "c"}, "c"),
    ],
)
def test_the_end_user_is_found_in_the_request(fields: dict[str, Any], user: str) -> None:
    assert parse(**fields).user == user


@pytest.mark.parametrize(("tier", "priced"), [(None, ""), ("auto", ""), ("default", "default"), ("priority", "priority"), ("flex", "flex")])
def test_a_service_tier_with_its_own_price_is_told(tier: str | None, priced: str) -> None:
    assert parse(service_tier=tier).tier == priced


def test_the_legacy_functions_field_is_recorded_as_tools() -> None:
    call = parse(functions=[{"name": "book"}], tools=None)
    assert call.tools is not None
    assert json.loads(bytes(call.tools)) == [{"name": "book"}]
    assert "functions" not in json.loads(bytes(call.params))


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({}, None),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": -1, "max_completion_tokens": 9}, None),
        ({"max_tokens": 5, "max_completion_tokens": 9, "n": 2}, 18),
    ],
)
def test_the_bound_of_the_output_covers_every_choice_and_either_name(fields: dict[str, Any], bound: int | None) -> None:
    assert parse(**fields).max_output == bound


@pytest.mark.parametrize(
    ("fields", "rewrite", "changed"),
    [
        ({}, Rewrite(max_output=7), {"max_completion_tokens": 7}),
        ({}, Rewrite(max_output=7, modern=False), {"max_tokens": 7}),
        ({"max_tokens": 9}, Rewrite(max_output=7), {"max_tokens": 7}),
        ({"max_tokens": 5}, Rewrite(max_output=7), {}),
        ({"max_tokens": 7}, Rewrite(max_output=7, modern=False), {}),
        ({"max_tokens": None}, Rewrite(max_output=7), {"max_completion_tokens": 7}),
        ({"max_tokens": 0}, Rewrite(max_output=7), {"max_tokens": 7}),
        ({"max_tokens": -1}, Rewrite(max_output=7, modern=False), {"max_tokens": 7}),
        ({"max_tokens": 0}, Rewrite(), {}),
        ({"max_completion_tokens": 9}, Rewrite(modern=False), {"max_tokens": 9}),
        ({"max_completion_tokens": 9, "n": 2}, Rewrite(modern=False), {"max_tokens": 9}),
        ({"max_tokens": 9}, Rewrite(modern=False), {}),
        ({"max_tokens": None}, Rewrite(max_output=7, modern=False), {"max_tokens": 7}),
        ({"max_completion_tokens": 9}, Rewrite(max_output=7), {"max_completion_tokens": 7}),
        ({"max_completion_tokens": 5}, Rewrite(max_output=7, modern=False), {"max_tokens": 5}),
        ({"max_completion_tokens": 9}, Rewrite(max_output=7, modern=False), {"max_completion_tokens": 7, "max_tokens": 7}),
        ({"max_completion_tokens": 9, "max_tokens": 5}, Rewrite(max_output=7), {"max_completion_tokens": 7}),
        ({}, Rewrite(model="gpt-4o"), {}),
        ({}, Rewrite(model="m/2"), {"model": "m/2"}),
        ({}, Rewrite(usage_in_stream=True), {}),
        ({"stream": True}, Rewrite(usage_in_stream=True), {"stream_options": {"include_usage": True}}),
        ({"stream": True, "stream_options": None}, Rewrite(usage_in_stream=True), {"stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_obfuscation": False, "include_usage": False}},
            Rewrite(usage_in_stream=True),
            {"stream_options": {"include_obfuscation": False, "include_usage": True}},
        ),
        ({"stream": True, "stream_options": {"include_usage": True}}, Rewrite(usage_in_stream=True), {}),
    ],
)
def test_a_rewrite_changes_only_what_it_must(fields: dict[str, Any], rewrite: Rewrite, changed: dict[str, Any]) -> None:
    fields = {**fields, "temperature": 1.50, "unknown": {"z": [1, 2]}}
    body = request(**fields)
    sent = FORMAT.rewrite(body, FORMAT.parse(body), rewrite)
    assert json.loads(sent) == {**json.loads(body), **changed}
    assert (sent is body) == (not changed)
    assert b'"messages":' + json.dumps([USER]).encode() in sent.replace(b'"messages": ', b'"messages":')


def test_the_bound_that_was_checked_is_the_bound_that_is_sent() -> None:
    body = b'{"max_tokens":1000000,"model":"m","messages":[{"role":"user","content":"a"}],"max_tokens":5}'
    call = FORMAT.parse(body)
    assert call.max_output == 5
    for rewrite in (Rewrite(), Rewrite(max_output=7)):
        assert FORMAT.rewrite(body, call, rewrite).count(b"max_tokens") == 1
        assert json.loads(FORMAT.rewrite(body, call, rewrite))["max_tokens"] == 5


def test_a_refusal_carries_its_numbers_in_the_error_body_of_the_sdks() -> None:
    details: dict[str, str | int | float | None] = {"limit_usd": "5.00", "message": "not this one"}
    refusal = Refusal(status=402, kind="spend_limit_reached", message="No money left.", details=details)
    assert json.loads(FORMAT.refusal(refusal))["error"] == {
        "message": "No money left.",
        "type": "insufficient_quota",
        "code": "spend_limit_reached",
        "param": None,
        "limit_usd": "5.00",
    }


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (403, "permission_error"), (503, "server_error")])
def test_a_refusal_has_the_type_of_its_status(status: int, kind: str) -> None:
    assert json.loads(FORMAT.refusal(Refusal(status=status, kind="k", message="m", param="n")))["error"]["type"] == kind


def test_an_answer_of_the_gateways_own_reads_back_as_an_answer() -> None:
    body = FORMAT.canned(parse(), "By e-mail.", "id-1", 1_700_000_000)
    answer = FORMAT.answer(body)
    assert (answer.text, answer.finish_reason, answer.response_id, answer.model) == ("By e-mail.", "stop", "id-1", "gpt-4o")
    assert answer.turns == parse(messages=[assistant(content="By e-mail.")]).turns


@pytest.mark.parametrize("wanted", [False, True])
def test_a_streamed_answer_of_the_gateways_own_reads_back_too(wanted: bool) -> None:
    call = parse(stream=True, stream_options={"include_usage": wanted})
    reader = FORMAT.stream(call, Rewrite())
    body = FORMAT.canned(call, "By e-mail.", "id-1", 1_700_000_000)
    assert reader.feed(body) == body
    answer = reader.answer()
    assert (answer.text, answer.finish_reason, answer.complete, answer.usage is not None) == ("By e-mail.", "stop", True, wanted)


@pytest.mark.parametrize(
    "bounds", [{}, {"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": None}]
)
@pytest.mark.parametrize("modern", [False, True])
def test_a_body_that_may_be_left_as_it_is_would_not_be_changed(bounds: dict[str, Any], modern: bool) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **bounds}).encode()
    call, rewrite = FORMAT.parse(body), Rewrite(modern=modern)
    assert rewrite.leaves(call) == (FORMAT.rewrite(body, call, rewrite) is body)
