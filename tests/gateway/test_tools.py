"""Calls through `/tools/NAME`: relayed unread behind the tool's base URL, under limits, rates, the kill switch, and on record."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import ConnectFailed, ConnectionCut
from holdfast.gateway.masking import masked
from holdfast.policy.limit import Limit
from holdfast.testing import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[..., MemoryGateway]

TOOLS = """
providers: {simulated: {kind: simulated, base_url: 'http://127.0.0.1:9/v1'}}
tools:
  crm: {base_url: "https://crm.example.com/api", headers: {Authorization: "Bearer env:CRM_TOKEN", X-Team: blue},
    timeout: 5s, price_per_call: 0.25}
  root: {base_url: "https://root.example.com"}
"""
CHAT = {"model": "sim-ok", "messages": [{"role": "user", "content": "hello"}]}
JSON = ((b"content-type", b"application/json"),)


@pytest.fixture
def world(tmp_path: Path) -> Build:
    def build(yaml: str = "", **environment: str) -> MemoryGateway:
        file = tmp_path / "holdfast.yaml"
        file.write_text(TOOLS + yaml)
        return MemoryGateway(load(file, {"CRM_TOKEN": "crm-secret", **environment}).gateway)

    return build


def told(response: MemoryResponse) -> Any:
    return json.loads(response.body)["error"]


def refused(response: MemoryResponse) -> tuple[int, str]:
    return response.status, dict(response.headers)[b"x-holdfast-refusal"].decode()


def spent(world: MemoryGateway, limit: Limit, value: str) -> int:
    world.limiter.close(lambda error: None)
    world.clock.advance(SECOND)
    return world.ledger.spent(limit.account(value))


def everything_on_record(world: MemoryGateway) -> bytes:
    return msgspec.json.encode([*world.recorder.api_calls, *world.recorder.errors])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_call_is_relayed_unread_with_the_tools_headers_in_place_of_the_agents(world: Build, method: str) -> None:
    gateway = world("agents: {support: {key: env:KEY}}", KEY="agent-key")
    sent = {"authorization": "Bearer agent-key", "x-team": "mine", "x-holdfast-user": "ann", "x-holdfast-interaction": "i1"}
    response = gateway.handle(
        request(method, "/tools/crm/v1/contacts/7?q=a%2Fb", b"\x00raw", {**sent, "content-type": "x/y", "cookie": "c"})
    )
    upstream = gateway.upstream.latest.request
    assert (upstream.method.decode(), upstream.target, upstream.body) == (method, b"/api/v1/contacts/7?q=a%2Fb", b"\x00raw")
    assert (upstream.origin.host, upstream.origin.tls) == ("crm.example.com", True)
    assert sorted(upstream.headers) == [
        (b"accept-encoding", b"identity"),
        (b"authorization", b"Bearer crm-secret"),
        (b"content-type", b"x/y"),
        (b"x-team", b"blue"),
    ]
    gateway.upstream.latest.start(201, ((b"content-type", b"z/z"), (b"etag", b"1")))
    assert (response.status, dict(response.headers)[b"etag"]) == (201, b"1")
    gateway.upstream.latest.data(b"\x01one")
    assert response.writes == [b"\x01one"]  # as it comes
    gateway.upstream.latest.end()
    assert response.ended
    (call,) = gateway.recorder.api_calls
    assert (call.agent, call.user_id, call.interaction, call.decision_id) == ("support", "ann", "i1", "")
    assert (call.target_api, call.response_code) == (f"tool/crm {method} /v1/contacts/7", 201)
    assert (call.cost, call.cost_source, call.usage) == (250_000_000, "per_call", None)
    assert not gateway.recorder.decisions and not gateway.recorder.errors


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/tools/crm", b"/api"),
        ("/tools/crm/", b"/api/"),
        ("/tools/crm/a/", b"/api/a/"),
        ("/tools/crm/a%20b/x%2Fy", b"/api/a%20b/x%2Fy"),
        ("/tools/crm/v1/chat/completions", b"/api/v1/chat/completions"),
        ("/tools/root", b"/"),
        ("/tools/root/", b"/"),
        ("/tools/root/v1/a", b"/v1/a"),
    ],
)
def test_the_path_goes_behind_the_base_url(world: Build, path: str, target: bytes) -> None:
    gateway = world()
    gateway.call("GET", path)
    assert gateway.upstream.latest.request.target == target


@pytest.mark.parametrize(
    "rest",
    [
        "/..",
        "/../x",
        "/a/../../x",
        "/%2e%2e/x",
        "/a%2F..%2F..%2Fx",
        "/%252e%252e/x",
        "//x",
        "/a//x",
        "//",
        "/./x",
        "/..;/x",
        "/a;x",
        "/\\..\\x",
        "/%5c..%5cx",
        "/a%00",
        "/a%0d%0ab",
        "/.",
        "/../",
    ],
)
def test_no_path_leads_out_of_the_prefix(world: Build, rest: str) -> None:
    gateway = world()
    assert refused(gateway.call("GET", f"/tools/crm{rest}")) == (404, "unknown_path")
    assert not gateway.upstream.exchanges


@pytest.mark.parametrize("path", ["/tools/../healthz", "/tools/", "/tools//crm/x", "/tools/CRM/x", "/tools/crm%2Fx", "/tools/cr%6D"])
def test_a_tool_goes_by_its_name_exactly(world: Build, path: str) -> None:
    gateway = world()
    assert refused(gateway.call("GET", path)) == (404, "unknown_tool")
    assert not gateway.upstream.exchanges


def test_an_unknown_tool_is_told_to_known_agents_only(world: Build) -> None:
    gateway = world("agents: {support: {key: env:KEY}}", KEY="agent-key")
    stranger = gateway.call("GET", "/tools/crn/x", headers={"authorization": "Bearer other"})
    assert refused(stranger) == (403, "unknown_key") and b"crm" not in stranger.body
    assert told(gateway.call("GET", "/tools/crn/x", headers={"x-api-key": "agent-key"}))["message"].endswith('; did you mean "crm"?')
    assert told(gateway.call("GET", "/tools/zzz", headers={"x-api-key": "agent-key"}))["message"].endswith("; known here: crm, root")
    assert refused(gateway.call("GET", "/tools/crm/x", headers={"authorization": "Bearer other"})) == (403, "unknown_key")


def test_a_web_socket_to_a_tool_is_refused(world: Build) -> None:
    assert refused(world().call("GET", "/tools/crm/x", headers={"sec-websocket-key": "x"})) == (426, "websocket")


def test_a_tool_without_its_secret_is_not_called(world: Build) -> None:
    gateway = world(CRM_TOKEN="")
    response = gateway.call("GET", "/tools/crm/x")
    assert refused(response) == (503, "tool_without_key") and not gateway.upstream.exchanges
    assert "tool crm has no key: env:CRM_TOKEN" in told(response)["message"]


@pytest.mark.parametrize("declared", ["limits: [{calls: 2, per: total, scope: tool}]", "limits: [{usd: 0.6, per: total, scope: tool}]"])
def test_a_limit_of_scope_tool_counts_each_tool_apart_and_no_model_call(world: Build, declared: str) -> None:
    gateway = world(declared.replace("]", ", {calls: 100, per: hour}]"))
    for _ in range(4):
        gateway.call("POST", "/v1/chat/completions", CHAT)
    made = len(gateway.upstream.exchanges)
    assert made == 4
    responses = [gateway.call("GET", "/tools/crm/x") for _ in range(3)]
    assert len(gateway.upstream.exchanges) == made + 2
    assert responses[2].status == 402 and "tool crm: " in told(responses[2])["limit"]
    if "usd" not in declared:
        gateway.call("GET", "/tools/root/x")
        assert len(gateway.upstream.exchanges) == made + 3


@pytest.mark.parametrize("scope", ["all", "agent", "user", "interaction"])
def test_limits_of_other_scopes_count_a_call_through_a_tool_as_a_call(world: Build, scope: str) -> None:
    gateway = world(f"limits: [{{calls: 2, per: total, scope: {scope}}}]")
    who = {"x-holdfast-user": "ann", "x-holdfast-interaction": "i"}
    gateway.call("POST", "/v1/chat/completions", CHAT, who)
    gateway.call("GET", "/tools/crm/x", headers=who)
    assert refused(gateway.call("GET", "/tools/root/x", headers=who)) == (402, "call_limit_reached")
    assert refused(gateway.call("POST", "/v1/chat/completions", CHAT, who)) == (402, "call_limit_reached")
    assert len(gateway.upstream.exchanges) == 2


def test_a_token_limit_counts_none_for_a_tool(world: Build) -> None:
    limit = Limit(scope="all", unit="tokens", amount=1000)
    gateway = world("limits: [{tokens: 1000, per: total}]")
    for _ in range(3):
        gateway.call("POST", "/tools/root/x", {"much": "x" * 5000})
        gateway.upstream.latest.answer(b"{}")
    assert len(gateway.upstream.exchanges) == 3 and spent(gateway, limit, "") == 0


def test_a_tool_without_a_price_is_refused_under_a_spend_limit_with_the_key_to_write(world: Build) -> None:
    gateway = world("limits: [{usd: 5, per: day}]")
    response = gateway.call("GET", "/tools/root/x")
    assert refused(response) == (402, "tool_without_price") and not gateway.upstream.exchanges
    assert "tools.root.price_per_call" in told(response)["message"]
    unlimited = world()
    unlimited.call("GET", "/tools/root/x")
    unlimited.upstream.latest.answer(b"{}")
    assert [(call.cost, call.cost_source) for call in unlimited.recorder.api_calls] == [(None, "unpriced")]


PAID = 250_000_000


@pytest.mark.parametrize(
    ("status", "cost"), [(200, PAID), (204, PAID), (302, PAID), (304, PAID), (400, PAID), (404, PAID), (429, PAID), (500, 0), (503, 0)]
)
def test_a_call_is_paid_for_unless_the_tool_failed(world: Build, status: int, cost: int) -> None:
    gateway = world("limits: [{usd: 5, per: total}]")
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"" if status in (204, 304) else b"said", status, ((b"location", b"/y"), (b"retry-after", b"60")))
    assert (response.status, response.ended, dict(response.headers)[b"location"]) == (status, True, b"/y")
    gateway.clock.advance(120 * SECOND)
    assert len(gateway.upstream.exchanges) == 1  # never sent again
    assert [call.cost for call in gateway.recorder.api_calls] == [cost]
    assert len(gateway.recorder.errors) == (status >= 400)
    assert spent(gateway, Limit(scope="all", unit="usd", amount=5 * 10**9), "") == cost


def test_a_tool_that_asks_to_be_left_alone_holds_no_later_call_back(world: Build) -> None:
    gateway = world("rates: [{requests: 100, per: second}]")
    gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.answer(b"", 429, ((b"retry-after", b"3600"), (b"x-ratelimit-remaining-requests", b"0")))
    gateway.call("GET", "/tools/crm/y")
    assert len(gateway.upstream.exchanges) == 2


def test_a_connection_that_fails_is_free_and_an_answer_that_is_cut_is_paid_for(world: Build) -> None:
    gateway = world()
    gateway.upstream.refusing = ConnectFailed("no connection to crm.example.com: refused")
    unreachable = gateway.call("POST", "/tools/crm/x", b"{}")
    gateway.clock.advance(4 * SECOND)
    assert refused(unreachable) == (503, "upstream_failed")
    gateway.upstream.refusing = None
    cut = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.start(200, JSON)
    gateway.upstream.latest.data(b"{")
    gateway.upstream.latest.fail(ConnectionCut("closed"))
    assert cut.aborted
    assert [call.cost for call in gateway.recorder.api_calls] == [0, 0, 0, PAID]  # what never came to the tool is sent again
    assert [error.error_type for error in gateway.recorder.errors] == ["connection"] * 4
    assert [error.recovery_action for error in gateway.recorder.errors] == ["retried", "retried", "none", "none"]


def test_a_tool_has_its_own_time(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.clock.advance(5 * SECOND - 1)
    assert not response.over
    gateway.clock.advance(1)
    assert refused(response) == (504, "upstream_failed") and gateway.upstream.latest.cancelled
    assert [(error.error_type, error.message) for error in gateway.recorder.errors] == [("timeout", "tool/crm: total time-out after 5 s")]
    assert [call.cost for call in gateway.recorder.api_calls] == [PAID]


def test_the_agents_time_holds_where_it_is_shorter(world: Build) -> None:
    gateway = world("agents: {a: {timeouts: {total: 2s}}}")
    responses = [gateway.call("GET", "/tools/crm/x"), gateway.call("GET", "/tools/root/x")]
    gateway.clock.advance(2 * SECOND)
    assert [response.status for response in responses] == [504, 504]


@pytest.mark.parametrize("scope", ["all", "agent", "user"])
def test_rates_count_calls_through_tools(world: Build, scope: str) -> None:
    gateway = world(f"rates: [{{requests: 1, per: minute, burst: 1, on_excess: refuse, scope: {scope}}}, {{tokens: 1, per: hour}}]")
    who = {"x-holdfast-user": "ann"}
    gateway.call("GET", "/tools/crm/x", headers=who)
    assert refused(gateway.call("GET", "/tools/crm/x", headers=who)) == (429, "rate_limit_reached")
    assert len(gateway.upstream.exchanges) == 1


@pytest.mark.parametrize(
    ("scope", "value", "stopped"),
    [
        ("tool", "crm", True),
        ("tool", "root", False),
        ("tool", "CRM", False),
        ("all", "", True),
        ("agent", "default", True),
        ("agent", "other", False),
        ("release", "unreleased", True),
        ("model", "crm", False),
    ],
)
def test_the_kill_switch_stops_calls_through_what_it_names(world: Build, scope: Any, value: str, stopped: bool) -> None:
    gateway = world("limits: [{usd: 5, per: total}]")
    gateway.kill(scope, value)
    response = gateway.call("GET", "/tools/crm/x")
    assert bool(gateway.upstream.exchanges) != stopped
    if stopped:
        assert refused(response) == (403, "killed") and "out of hand" in told(response)["message"]
        assert [error.error_type for error in gateway.recorder.errors] == ["refused"] and not gateway.recorder.api_calls


def test_a_kill_of_a_tool_leaves_calls_of_models_alone(world: Build) -> None:
    gateway = world()
    gateway.kill("tool", "crm")
    gateway.call("POST", "/v1/chat/completions", CHAT)
    assert len(gateway.upstream.exchanges) == 1


def test_cut_ends_what_is_streaming_and_drain_lets_it_end(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.upstream.latest.start(200, JSON)
    gateway.upstream.latest.data(b"{")
    gateway.kill("tool", "crm", "drain")
    assert not response.over
    gateway.kill("all")
    gateway.kill("tool", "crm", "cut")  # beside a kill of everything that drains
    assert response.aborted and gateway.upstream.latest.cancelled
    assert [(call.response_code, call.cost) for call in gateway.recorder.api_calls] == [(200, PAID)]


def test_cut_before_the_answer_is_a_refusal(world: Build) -> None:
    gateway = world()
    response = gateway.call("GET", "/tools/crm/x")
    gateway.kill("tool", "crm", "cut")
    assert refused(response) == (403, "killed") and gateway.upstream.latest.cancelled


def test_secrets_reach_neither_the_record_nor_the_agent(world: Build) -> None:
    gateway = world()
    answers = [gateway.call("POST", "/tools/crm/x", {"a": 1}) for _ in range(2)]
    first, second = gateway.upstream.exchanges
    first.answer(b'{"error": "token crm-secret is not valid (Bearer crm-secret)"}', 401)
    second.answer(b'{"ok": true}')
    assert answers[0].body == b'{"error": "token *** is not valid (Bearer ***)"}'
    assert all(b"crm-secret" not in answer.body + repr(answer.headers).encode() for answer in answers)
    assert b"crm-secret" not in everything_on_record(gateway) and b"***" in everything_on_record(gateway)


def test_without_a_record_no_tool_is_called(world: Build) -> None:
    gateway = world()
    gateway.recorder.failing = True
    assert refused(gateway.call("GET", "/tools/crm/x")) == (503, "record_unavailable")
    assert not gateway.upstream.exchanges


def test_a_client_that_leaves_stops_the_tool(world: Build) -> None:
    gateway = world()
    gateway.call("GET", "/tools/crm/x").leave()
    assert gateway.upstream.latest.cancelled
    assert [error.error_type for error in gateway.recorder.errors] == ["cancelled"]


def test_headers_that_are_for_one_hop_only_do_not_pass_and_take_no_credential_with_them(world: Build) -> None:
    gateway = world()
    gateway.call("GET", "/tools/crm/x", headers={"connection": "close, X-Hop,authorization", "x-hop": "1", "x-other": "2"})
    sent = dict(gateway.upstream.latest.request.headers)
    assert b"x-hop" not in sent and sent[b"x-other"] == b"2" and sent[b"authorization"] == b"Bearer crm-secret"


def test_of_two_secrets_one_of_which_begins_with_the_other_nothing_is_left() -> None:
    assert masked(b"key abc-longer, key abc", [b"abc", b"abc-longer"]) == b"key ***, key ***"
