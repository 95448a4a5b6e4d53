"""Calls of MCP servers: guarded message by message, answered in the protocol's own shape, each call of a tool on record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import ConnectFailed, ConnectionCut
from holdfast.testing import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[..., MemoryGateway]

TOOLS = """
providers: {simulated: {kind: simulated, base_url: 'http://127.0.0.1:9/v1'}}
tools:
  shop: {base_url: "https://shop.example.com/mcp", mcp: true, deny: ["delete_*"], price_per_call: 0.25, timeout: 5s,
    headers: {Authorization: "Bearer env:SHOP_TOKEN"}}
  free: {base_url: "https://free.example.com/mcp", mcp: true}
"""
PAID = 250_000_000
EVENTS = ((b"content-type", b"text/event-stream"), (b"mcp-session-id", b"s1"))
JSON = ((b"content-type", b"application/json"),)
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
LISTED = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "add"}, {"name": "delete_all"}]}}


def call_of(name: str = "add", known: Any = 1, **arguments: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": known, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


def result_of(known: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": known, "result": {"content": [], **more}}


def event(message: Any) -> bytes:
    return b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n"


@pytest.fixture
def world(tmp_path: Path) -> Build:
    def build(yaml: str = "") -> MemoryGateway:
        file = tmp_path / "holdfast.yaml"
        file.write_text(TOOLS + yaml)
        return MemoryGateway(load(file, {"SHOP_TOKEN": "shop-secret"}).gateway)

    return build


def post(gateway: MemoryGateway, message: Any, server: str = "shop", **headers: str) -> MemoryResponse:
    return gateway.call("POST", f"/tools/{server}", message, {name.replace("_", "-"): value for name, value in headers.items()})


def denied(response: MemoryResponse) -> Any:
    """What a refusal says, in the shape of the protocol."""
    reply = json.loads(response.body)
    assert response.status == 200 and reply["jsonrpc"] == "2.0" and reply["error"]["code"] == -32050
    assert dict(response.headers)[b"x-holdfast-refusal"].decode() == reply["error"]["data"]["type"]
    return reply["error"]


def on_record(gateway: MemoryGateway) -> list[tuple[str, str, int | None]]:
    return [(call.target_api, call.tool.name if call.tool else "", call.cost) for call in gateway.recorder.api_calls]


def test_messages_session_and_headers_pass_with_the_servers_own_credentials(world: Build) -> None:
    gateway = world()
    response = post(
        gateway, call_of(a=1), mcp_session_id="s1", mcp_protocol_version="2025-11-25", accept="application/json, text/event-stream"
    )
    sent = gateway.upstream.latest.request
    assert (sent.method, sent.target, json.loads(sent.body)) == (b"POST", b"/mcp", call_of(a=1))
    headers = dict(sent.headers)
    assert headers[b"authorization"] == b"Bearer shop-secret" and headers[b"mcp-session-id"] == b"s1"
    assert headers[b"content-type"] == b"application/json" and headers[b"accept-encoding"] == b"identity"
    gateway.upstream.latest.answer(json.dumps(result_of()).encode())
    assert (response.status, json.loads(response.body), response.ended) == (200, result_of(), True)
    (call,) = gateway.recorder.api_calls
    assert call.tool is not None and json.loads(bytes(call.tool.arguments)) == {"a": 1}
    assert (call.tool.name, call.tool.session, call.tool.failed, call.cost) == ("add", "s1", False, PAID)
    assert call.tool.result_bytes == len(json.dumps(result_of()["result"]))


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_streams_and_the_end_of_a_session_pass_and_cost_nothing(world: Build, method: str) -> None:
    gateway = world("limits: [{usd: 1, per: day}, {calls: 1, per: day}]")
    for _ in range(3):
        response = gateway.call(method, "/tools/shop", headers={"mcp-session-id": "s1", "last-event-id": "7"})
        sent = gateway.upstream.latest.request
        assert (sent.method.decode(), dict(sent.headers)[b"last-event-id"]) == (method, b"7")
        gateway.upstream.latest.answer(b"", 200)
        assert response.ended and response.status == 200
    assert on_record(gateway) == [(f"tool/shop {method}", "", 0)] * 3


def test_a_stream_of_notifications_has_no_end_of_its_own(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/shop")
    gateway.upstream.latest.start(200, EVENTS)
    gateway.clock.advance(100_000 * SECOND)
    gateway.upstream.latest.data(event({"method": "notifications/x"}))
    assert response.writes == [event({"method": "notifications/x"})] and not response.over
    response.leave()
    assert gateway.upstream.latest.cancelled and on_record(gateway) == [("tool/shop GET", "", 0)] and not gateway.recorder.errors


def test_a_call_has_its_time_and_no_more(world: Build) -> None:
    gateway = world()
    response = post(gateway, call_of())
    gateway.clock.advance(5 * SECOND)
    reply = denied(response)
    assert reply["data"]["type"] == "upstream_failed" and "total time-out" in reply["message"] and gateway.upstream.latest.cancelled


@pytest.mark.parametrize("name", ["delete_all", "delete_"])
def test_a_tool_that_is_not_allowed_is_not_called_and_the_error_names_the_way_out(world: Build, name: str) -> None:
    gateway = world()
    error = denied(post(gateway, call_of(name)))
    assert not gateway.upstream.exchanges
    assert error["data"] == {"type": "tool_not_allowed", "tool": name, "server": "shop"} and "tools.shop.allow" in error["message"]
    assert [(each.error_type, each.recovery_action) for each in gateway.recorder.errors] == [("refused", "refused")]


def test_a_batch_with_one_call_that_is_not_allowed_goes_nowhere(world: Build) -> None:
    gateway = world()
    response = post(
        gateway, [call_of("add", 1), call_of("delete_all", "b"), {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "x"}}]
    )
    assert [reply["id"] for reply in json.loads(response.body)] == [1, "b"] and not gateway.upstream.exchanges


def test_a_notification_that_calls_a_tool_is_checked_and_counted_too(world: Build) -> None:
    gateway = world()
    message = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "delete_all"}}
    assert post(gateway, message).status == 403 and not gateway.upstream.exchanges
    post(gateway, {**message, "params": {"name": "add"}})
    gateway.upstream.latest.answer(b"", 202, ())
    assert on_record(gateway) == [("tool/shop tools/call add", "add", PAID)]


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"method":"ping"} {"method":"tools/call"}', b'{"method":"ping","Method":"tools/call"}', b"[]"]
)
def test_what_cannot_be_read_is_refused(world: Build, body: bytes) -> None:
    gateway = world()
    response = gateway.call("POST", "/tools/shop", body)
    reply = json.loads(response.body)
    assert (response.status, reply["id"], reply["error"]["code"]) == (400, None, -32600)
    assert not gateway.upstream.exchanges


def test_a_compressed_body_is_refused(world: Build) -> None:
    gateway = world()
    assert post(gateway, call_of(), content_encoding="gzip").status == 415 and not gateway.upstream.exchanges


@pytest.mark.parametrize("headers", [{"mcp-name": "delete_all"}, {"mcp-method": "ping"}])
def test_routing_headers_that_say_something_else_are_refused(world: Build, headers: dict[str, str]) -> None:
    gateway = world()
    response = gateway.call("POST", "/tools/shop", call_of(), headers)
    assert (response.status, json.loads(response.body)["error"]["code"]) == (400, -32020) and not gateway.upstream.exchanges


def test_routing_headers_that_come_twice_are_refused(world: Build) -> None:
    gateway = world()
    asked = request("POST", "/tools/shop", call_of(), {"mcp-name": "add"})
    asked.headers.append((b"mcp-name", b"delete_all"))
    assert gateway.handle(asked).status == 400 and not gateway.upstream.exchanges


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/tools/shop/other"), ("GET", "/tools/shop/api"), ("PUT", "/tools/shop"), ("HEAD", "/tools/shop")]
)
def test_nothing_but_the_endpoint_can_be_reached(world: Build, method: str, path: str) -> None:
    gateway = world()
    assert gateway.call(method, path, call_of()).status == 404 and not gateway.upstream.exchanges


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_that_are_not_allowed_are_not_offered(world: Build, streamed: bool) -> None:
    gateway = world()
    response = post(gateway, LIST)
    if streamed:
        gateway.upstream.latest.start(200, EVENTS)
        gateway.upstream.latest.data(event({"method": "notifications/x"}), event(LISTED))
        gateway.upstream.latest.end()
    else:
        gateway.upstream.latest.answer(json.dumps(LISTED).encode(), 200, ((b"content-length", b"999"), *JSON))
    assert response.ended and b"delete_all" not in response.body and b'"add"' in response.body
    assert on_record(gateway) == [("tool/shop tools/list", "", 0)]


def test_without_lists_answers_pass_byte_for_byte(world: Build) -> None:
    gateway = world()
    response = post(gateway, LIST, "free")
    body = b' {"id" : 1,\n "result":{"tools" : [ {"name":"x"} ]}} '
    gateway.upstream.latest.answer(body)
    assert response.body == body


def test_an_answer_that_cannot_be_read_is_not_passed_on_under_lists(world: Build) -> None:
    gateway = world()
    whole, stream, old = (post(gateway, LIST) for _ in range(3))
    gateway.upstream.exchanges[0].answer(b"<html>tools</html>")
    assert denied(whole)["data"]["type"] == "upstream_failed" and b"html" not in whole.body
    for at, data in ((1, b"data: no json\n\n"), (2, b"event: endpoint\ndata: /messages\n\n")):
        gateway.upstream.exchanges[at].start(200, EVENTS)
        gateway.upstream.exchanges[at].data(data)
    assert stream.over and old.over and b"no json" not in stream.body and b"/messages" not in old.body
    assert "old HTTP+SSE transport" in gateway.recorder.errors[-1].message
    assert b"old HTTP+SSE transport" in old.body  # the request has its answer


def test_a_compressed_answer_is_not_passed_on(world: Build) -> None:
    gateway = world()
    response = post(gateway, call_of())
    gateway.upstream.latest.start(200, ((b"content-encoding", b"br"), *JSON))
    assert "compresses" in denied(response)["message"] and gateway.upstream.latest.cancelled


def test_what_a_tool_says_of_its_failure_becomes_an_error_and_passes(world: Build) -> None:
    gateway = world()
    first, second = post(gateway, call_of()), post(gateway, call_of())
    failed, unknown = result_of(isError=True), {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such tool"}}
    gateway.upstream.exchanges[0].answer(json.dumps(failed).encode())
    gateway.upstream.exchanges[1].answer(json.dumps(unknown).encode(), 400)
    assert (json.loads(first.body), json.loads(second.body), second.status) == (failed, unknown, 400)
    assert [error.error_type for error in gateway.recorder.errors] == ["tool_error", "tool_error"]
    assert [call.error_id for call in gateway.recorder.api_calls] == [error.error_id for error in gateway.recorder.errors]
    assert all(call.tool is not None and call.tool.failed for call in gateway.recorder.api_calls)


def test_where_content_is_not_to_be_kept_neither_arguments_nor_errors_are(world: Build) -> None:
    gateway = world("agents: {a: {content: off}}")
    post(gateway, call_of(secret="s3cret"))
    gateway.upstream.latest.answer(json.dumps(result_of(isError=True, said="s3cret")).encode())
    (call,), (error,) = gateway.recorder.api_calls, gateway.recorder.errors
    assert call.tool is not None and bytes(call.tool.arguments) == b"{}" and "s3cret" not in error.full_traceback + error.message


def test_limits_and_prices_count_calls_of_tools_one_by_one(world: Build) -> None:
    gateway = world("limits: [{calls: 3, per: total, scope: tool}]")
    post(gateway, LIST)
    batch = post(gateway, [call_of("add", 1), LIST | {"id": 2}, call_of("add", 3)])
    gateway.upstream.latest.start(200, EVENTS)
    gateway.upstream.latest.data(event(result_of(3)), event([result_of(1, isError=True)]))
    gateway.upstream.latest.end()
    assert batch.ended
    assert on_record(gateway) == [("tool/shop tools/call add", "add", PAID)] * 2
    assert [(call.tool.failed, call.attempt, call.retry_count) for call in gateway.recorder.api_calls if call.tool] == [
        (True, 1, 0),
        (False, 1, 0),
    ]
    made = len(gateway.upstream.exchanges)
    two = post(gateway, [call_of("add", 1), call_of("add", 2)])
    assert [reply["error"]["data"]["type"] for reply in json.loads(two.body)] == ["call_limit_reached"] * 2
    post(gateway, call_of())  # what the refused batch had taken is free again
    post(gateway, LIST)
    assert len(gateway.upstream.exchanges) == made + 2
    assert denied(post(gateway, call_of()))["data"]["limit"].startswith("tool shop: ")


def test_latency_is_that_of_each_answer(world: Build) -> None:
    gateway = world()
    post(gateway, call_of())
    gateway.clock.advance(SECOND)
    gateway.upstream.latest.start(200, EVENTS)
    gateway.upstream.latest.data(event(result_of()))
    gateway.clock.advance(SECOND)
    gateway.upstream.latest.end()
    assert [call.latency_ms for call in gateway.recorder.api_calls] == [1000]


def test_a_client_that_has_its_answer_may_leave(world: Build) -> None:
    gateway = world()
    left, had = post(gateway, call_of()), post(gateway, call_of())
    gateway.upstream.exchanges[1].start(200, EVENTS)
    gateway.upstream.exchanges[1].data(event(result_of()))
    had.leave()
    assert not gateway.recorder.errors
    left.leave()
    assert [error.error_type for error in gateway.recorder.errors] == ["cancelled"]
    assert all(exchange.cancelled for exchange in gateway.upstream.exchanges)


def test_a_call_is_sent_again_only_where_it_never_came_to_its_server(world: Build) -> None:
    gateway = world()
    gateway.upstream.refusing = ConnectFailed("refused")
    unreachable = post(gateway, call_of(), idempotency_key="k")
    gateway.upstream.refusing = None
    gateway.clock.advance(SECOND)
    gateway.upstream.latest.fail(ConnectionCut("closed"))
    made = len(gateway.upstream.exchanges)
    gateway.clock.advance(5 * SECOND)
    assert made == 2 == len(gateway.upstream.exchanges) and unreachable.over


@pytest.mark.parametrize("scope_value", ["shop", "add"])
@pytest.mark.parametrize("mode", ["cut", "drain"])
def test_the_kill_switch_stops_a_server_or_one_of_its_tools(world: Build, scope_value: str, mode: Any) -> None:
    gateway = world()
    response = post(gateway, call_of())
    gateway.upstream.latest.start(200, EVENTS)
    gateway.kill("tool", scope_value, mode)
    assert gateway.upstream.latest.cancelled == (mode == "cut") == response.over
    if mode == "cut":
        assert json.loads(response.body.split(b"data: ")[1])["error"]["data"]["type"] == "killed"
    assert denied(post(gateway, call_of()))["data"]["type"] == "killed"
    made = len(gateway.upstream.exchanges)
    post(gateway, call_of("other"))
    assert len(gateway.upstream.exchanges) == made + (scope_value == "add")


def test_secrets_in_an_error_reach_nobody(world: Build) -> None:
    gateway = world()
    response = post(gateway, call_of())
    gateway.upstream.latest.answer(b"bad token shop-secret", 401, ((b"www-authenticate", b"Bearer x=shop-secret"),))
    assert response.body == b"bad token ***" and b"shop-secret" not in repr(response.headers).encode()
    assert "shop-secret" not in repr(gateway.recorder.errors)


def test_a_server_gets_the_one_of_two_names_that_was_checked(world: Build) -> None:
    gateway = world()
    post(gateway, b'{"method":"tools/call","id":1,"params":{"name":"delete_all","name":"add"}}')
    assert gateway.upstream.latest.request.body.count(b'"name"') == 1 and b"delete_all" not in gateway.upstream.latest.request.body


def test_a_failed_call_whose_client_leaves_with_its_result_is_an_error_on_record(world: Build) -> None:
    gateway = world()
    response = post(gateway, call_of())
    gateway.upstream.latest.start(200, EVENTS)
    gateway.upstream.latest.data(event(result_of(isError=True)))
    response.leave()  # before the server ends its stream
    (call,), (error,) = gateway.recorder.api_calls, gateway.recorder.errors
    assert (error.error_type, error.error_id) == ("tool_error", call.error_id)
