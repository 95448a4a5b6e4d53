"""MCP messages: what was checked is what the server reads, and what it answers is read on its way."""

import base64
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.errors import MalformedAnswer, MalformedRequest
from holdfast.wire.mcp import MAX_BATCH, MAX_NAME, AnswerReader, Named, error_replies, header_mismatch, read_posted
from holdfast.wire.mcp_stream import McpStream

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 1}, "_meta": {"progressToken": 3}}}
LIST = {"jsonrpc": "2.0", "id": "l", "result": {"tools": [{"name": "add"}, {"name": "delete_all", "x": [1]}], "nextCursor": "c"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_a_call_of_a_tool_is_read_with_its_arguments() -> None:
    posted = read_posted(encoded(CALL))
    (call,) = posted.calls
    assert (call.name, json.loads(bytes(call.arguments)), call.id, call.asks) == ("add", {"a": 1}, 7, True)
    assert json.loads(posted.body) == CALL and not posted.batch


def test_an_array_of_messages_is_read_one_by_one() -> None:
    posted = read_posted(encoded([CALL, {"jsonrpc": "2.0", "method": "notifications/x"}, {"jsonrpc": "2.0", "id": 1, "result": {}}]))
    assert (posted.methods, len(posted.calls), posted.batch) == ("tools/call, notifications/x, answer", 1, True)
    assert [message.asks for message in posted.messages] == [True, False, False]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"7",
        b'"tools/call"',
        b"[]",
        b"[[]]",
        encoded([CALL] * (MAX_BATCH + 1)),
        b"{}",
        b'{"method":7}',
        b'{"method":""}',
        b'{"method":"tools/call"}',
        b'{"method":"tools/call","params":[]}',
        b'{"method":"tools/call","params":{"name":null}}',
        b'{"method":"ping","id":{}}',
        b'{"method":"ping","id":[1]}',
        b'\xff{"method":"ping"}',
        b'\xef\xbb\xbf{"method":"ping"}',
        encoded(CALL).decode().encode("utf-16"),
        b'{"method":"ping"} {"method":"tools/call"}',
        b'{"method":"ping"}\n[1]',
        b"[" * 100_000,
        b'{"method":"ping","params":' + b"[" * 100_000,
        b'{"method":"ping","Method":"tools/call"}',
        b'{"METHOD":"tools/call","method":"ping"}',
        '{"method":"ping","paramſ":{}}'.encode(),
        b'{"method":"tools/call","params":{"name":"add","Name":"delete_all"}}',
    ],
)
def test_what_another_reader_may_read_differently_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read_posted(body)


@pytest.mark.parametrize(
    ("body", "method", "name"),
    [
        (b'{"method":"ping","method":"tools/call","params":{"name":"x"}}', "tools/call", "x"),
        (b'{"method":"tools/call","method":"ping"}', "ping", ""),
        (b'{"method":"tools/call","params":{"name":"a","name":"b"}}', "tools/call", "b"),
        (b'{"\\u006dethod":"tools/c\\u0061ll","params":{"n\\u0061me":"b"}}', "tools/call", "b"),
        (b'{"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}', "tools/call", "b"),
    ],
)
def test_a_field_that_comes_twice_goes_out_once_as_it_was_read(body: bytes, method: str, name: str) -> None:
    posted = read_posted(body)
    (message,) = posted.messages
    assert (message.method, message.name) == (method, name)
    pairs: list[tuple[str, Any]] = []
    json.loads(posted.body, object_pairs_hook=lambda found: pairs.extend(found) or dict(found))
    names = [key for key, _ in pairs]
    assert names.count("method") == 1 and names.count("name") <= 1
    assert not name or dict(pairs)["name"] == name


@given(params=st.dictionaries(st.text("abcdefxyz_", max_size=6), JSON, max_size=4), known=st.text(max_size=5) | st.integers(-9, 9))
@settings(deadline=None)
def test_a_message_means_the_same_when_it_goes_out(params: dict[str, Any], known: Any) -> None:
    message = {"jsonrpc": "2.0", "id": known, "method": "resources/list", "params": params}
    posted = read_posted(encoded(message))
    assert json.loads(posted.body) == message and posted.messages[0].id == known


@given(st.binary(max_size=60) | JSON.map(encoded))
@settings(deadline=None)
def test_no_body_is_more_than_malformed(body: bytes) -> None:
    with suppress(MalformedRequest):
        read_posted(body)
    with suppress(MalformedRequest):
        AnswerReader(lambda _: False).read(body)


@pytest.mark.parametrize(
    ("named", "permitted", "refused"),
    [
        (Named(), ["a", ""], []),
        (Named(allow=()), [], ["a"]),
        (Named(allow=("get_*", "add")), ["get_", "get_x", "add"], ["adder", "xget_", "Add"]),
        (Named(deny=("*delete*",)), ["add"], ["delete", "x_delete_y"]),
        (Named(allow=("*",), deny=("add",)), ["adds"], ["add"]),
    ],
)
def test_deny_comes_before_allow(named: Named, permitted: list[str], refused: list[str]) -> None:
    assert all(map(named.permits, permitted)) and not any(map(named.permits, refused))


@pytest.mark.parametrize(
    ("method", "name", "fits"),
    [
        (None, None, True),
        (b"tools/call", b"add", True),
        (b"tools/call", b"=?base64?" + base64.b64encode(b"add") + b"?=", True),
        (b"tools/list", b"add", False),
        (b"tools/call", b"delete_all", False),
        (None, b"=?base64?%%%?=", False),
    ],
)
def test_routing_headers_say_what_the_body_says(method: bytes | None, name: bytes | None, fits: bool) -> None:
    assert (header_mismatch(read_posted(encoded(CALL)), method, name) == "") is fits


def test_routing_headers_belong_to_one_message() -> None:
    assert header_mismatch(read_posted(encoded([CALL])), b"tools/call", None)


def test_every_request_has_its_error_in_the_shape_that_it_came_in() -> None:
    alone = error_replies(read_posted(encoded(CALL)), -1, "no", {"x": 1})
    assert json.loads(alone or b"") == {"jsonrpc": "2.0", "id": 7, "error": {"code": -1, "message": "no", "data": {"x": 1}}}
    posted = read_posted(encoded([CALL, {"method": "notifications/x"}, {**CALL, "id": "b"}]))
    assert [reply["id"] for reply in json.loads(error_replies(posted, -1, "no", None) or b"")] == [7, "b"]
    assert error_replies(read_posted(b'{"method":"notifications/x"}'), -1, "no", None) is None


@pytest.mark.parametrize(
    ("answer", "failed", "code"),
    [
        ({"id": 7, "result": {"content": [], "isError": False}}, False, None),
        ({"id": 7, "result": {"content": [{"type": "text", "text": "no"}], "isError": True}}, True, None),
        ({"id": 7, "error": {"code": -32602, "message": "unknown tool"}}, True, -32602),
        ({"id": 7, "error": "odd"}, True, None),
    ],
)
def test_an_outcome_is_read_and_the_answer_left_alone(answer: dict[str, Any], failed: bool, code: int | None) -> None:
    reader = AnswerReader(lambda name: name != "delete_all")
    assert reader.read(encoded(answer)) is None
    (outcome,) = reader.outcomes
    assert (outcome.id, outcome.failed, outcome.code) == (7, failed, code)
    assert outcome.size == len(encoded(answer.get("result", answer.get("error"))))


@pytest.mark.parametrize(
    "message", [{"method": "notifications/progress", "params": {}}, {"id": 1, "method": "sampling/createMessage"}, {"id": 1}]
)
def test_what_the_server_says_of_itself_is_no_outcome(message: dict[str, Any]) -> None:
    reader = AnswerReader(lambda _: False)
    assert reader.read(encoded(message)) is None and not reader.outcomes


@pytest.mark.parametrize("batch", [False, True])
def test_tools_that_are_not_allowed_are_not_offered(batch: bool) -> None:
    other = {"jsonrpc": "2.0", "id": 2, "result": {}}
    passed = AnswerReader(lambda name: name != "delete_all").read(encoded([other, LIST] if batch else LIST))
    offered = json.loads(passed or b"")
    assert (offered[1] if batch else offered) == {**LIST, "result": {"tools": [{"name": "add"}], "nextCursor": "c"}}


def test_a_list_that_holds_only_what_is_allowed_passes_untouched() -> None:
    assert AnswerReader(lambda _: True).read(encoded(LIST)) is None
    assert AnswerReader(None).read(encoded(LIST)) is None


STREAM = (
    b": ping\n\n"
    b"id: 1\ndata:\n\n"
    b'event: message\nid: 2\ndata: {"method":"notifications/progress"}\n\n'
    b"event: message\r\nid: 3\r\ndata: " + encoded(LIST)[:30] + b"\r\ndata: " + encoded(LIST)[30:] + b"\r\nretry: 5\r\n\r\n"
    b'data: {"id":7,"result":{"isError":true}}\n\n'
    b"data: unfinished"
)


@given(cuts=st.lists(st.integers(1, 90), min_size=1, max_size=20))
@settings(deadline=None)
def test_however_a_stream_is_cut_its_lists_are_filtered_and_the_rest_passes(cuts: list[int]) -> None:
    reader = AnswerReader(lambda name: name != "delete_all")
    stream = McpStream(reader, guarded=True)
    passed, left, at = b"", STREAM, 0
    while left:
        size = cuts[at % len(cuts)]
        passed, left, at = passed + stream.feed(left[:size]), left[size:], at + 1
    passed += stream.flush()
    assert b"delete_all" not in passed and b"unfinished" not in passed
    assert passed.startswith(STREAM[: STREAM.index(b"event: message\r\n")])
    assert b"event: message\r\nid: 3\r\ndata: {" in passed and b"retry: 5\r\n\r\n" in passed
    assert passed.endswith(b'data: {"id":7,"result":{"isError":true}}\n\n')
    assert [(outcome.id, outcome.failed) for outcome in reader.outcomes] == [("l", False), (7, True)]


def test_a_stream_of_the_old_transport_is_refused_by_name() -> None:
    with pytest.raises(MalformedAnswer, match=r"old HTTP\+SSE transport"):
        McpStream(AnswerReader(None), guarded=False).feed(b"event: endpoint\ndata: /messages?sessionId=1\n\n")


def test_what_cannot_be_read_ends_a_guarded_stream_and_passes_in_another() -> None:
    odd = b'data: {"id":1,"result":{"tools":[{"name":7}]}}\n\n'
    assert McpStream(AnswerReader(None), guarded=False).feed(b"data: no json\n\n") == b"data: no json\n\n"
    for event in (b"data: no json\n\n", odd, b"data: " + b"x" * (17 << 20)):
        with pytest.raises(MalformedAnswer):
            McpStream(AnswerReader(lambda _: False), guarded=True).feed(event)


def test_a_byte_order_mark_does_not_bring_a_list_past_the_filter() -> None:
    stream = McpStream(AnswerReader(lambda name: name != "delete_all"), guarded=True)
    passed = stream.feed(b"\xef\xbb\xbfdata: " + encoded(LIST) + b"\n\n")
    assert b"delete_all" not in passed and b'{"name": "add"}' in passed


@pytest.mark.parametrize("method", ["TOOLS/CALL", "tools/call ", "\ttools/Call"])
def test_a_method_that_a_careless_server_takes_for_a_call_of_a_tool_is_refused(method: str) -> None:
    with pytest.raises(MalformedRequest, match="some servers read the method"):
        read_posted(encoded(CALL | {"method": method}))


def test_names_without_end_are_refused() -> None:
    longest, longer = "n" * MAX_NAME, "n" * (MAX_NAME + 1)
    assert read_posted(encoded(CALL | {"params": {"name": longest}})).calls[0].name == longest
    assert read_posted(encoded({"id": 1, "method": "resources/read", "params": {"uri": longer}})).messages[0].name == longer
    for message in (CALL | {"params": {"name": longer}}, CALL | {"method": longer}):
        with pytest.raises(MalformedRequest, match=str(MAX_NAME)):
            read_posted(encoded(message))
