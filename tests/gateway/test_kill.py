"""The kill switch at every point of a call: before it, while it waits, while it is answered, in what it answers."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import Withdrawn
from holdfast.policy.limit import Limit
from holdfast.testing import FakeClock, MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.simulated_provider import SimulatedProvider

Build = Callable[[str], MemoryGateway]

YAML = "agents: {support: {routes: {'*': [simulated/*]}}}\nlimits: [{usd: 1, per: total}]"
TOTAL = Limit(scope="all", unit="usd", amount=10**9)
SAID = [{"role": "user", "content": "hello"}]
PARAMETERS = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
REFUND = {"name": "refund", "description": "Refund.", "parameters": PARAMETERS}
LOOK_UP = {"name": "look_up", "description": "Look up.", "parameters": PARAMETERS}


def chat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": tool}


def responses_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **tool}


def anthropic_tool(tool: dict[str, Any]) -> dict[str, Any]:
    return {"name": tool["name"], "input_schema": tool["parameters"]}


FORMATS: Any = pytest.mark.parametrize(
    ("path", "body", "tool"),
    [
        ("/v1/chat/completions", {"messages": SAID, "max_tokens": 500}, chat_tool),
        ("/v1/responses", {"input": SAID, "max_output_tokens": 500}, responses_tool),
        ("/v1/messages", {"messages": SAID, "max_tokens": 500}, anthropic_tool),
    ],
    ids=["chat", "responses", "messages"],
)


def events(stream: bytes) -> list[Any]:
    """The data of a well-formed event stream."""
    assert stream.endswith(b"\n\n")
    lines = [line for event in stream[:-2].split(b"\n\n") for line in event.split(b"\n")]
    assert all(line.startswith((b"data: ", b"event: ")) for line in lines)
    return [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


def is_killed_refusal(response: MemoryResponse) -> bool:
    headers = dict(response.headers)
    assert (headers[b"x-should-retry"], headers[b"x-holdfast-refusal"]) == (b"false", b"killed")
    error = json.loads(response.body)["error"]
    assert "out of hand" in error["message"] and "ann@host" in error["message"]
    return response.status == 403 and (error.get("code") or error["details"]["error_code"]) == "killed"


def ends_in_a_killed_error(response: MemoryResponse) -> bool:
    last = events(response.body)[-1]
    error = last["error"]
    assert "out of hand" in error["message"]
    assert b"[DONE]" not in response.body and b"message_stop" not in response.body and b"response.completed" not in response.body
    return response.ended and (error.get("code") or error["details"]["error_code"]) == "killed"


def answer_of_the_provider(path: str, body: dict[str, Any]) -> list[bytes]:
    clock = FakeClock()
    response = MemoryResponse()
    SimulatedProvider(clock=clock).application(request("POST", path, body), response)
    clock.advance(60 * SECOND)
    assert response.ended, response.body
    return response.body.splitlines(keepends=True) if not body.get("stream") else [e + b"\n\n" for e in response.body.split(b"\n\n")[:-1]]


def spent(world: MemoryGateway) -> int:
    world.limiter.close(lambda error: None)
    world.clock.advance(SECOND)
    return world.ledger.spent(TOTAL.account(""))


@pytest.mark.parametrize(
    ("scope", "value", "stopped"),
    [
        ("all", "", True),
        ("agent", "support", True),
        ("agent", "billing", False),
        ("release", "unreleased", True),
        ("release", "v7", False),
        ("model", "sim-ok", True),
        ("model", "simulated/sim-ok", True),
        ("model", "sim", False),
        ("tool", "refund", False),
    ],
)
@FORMATS
def test_a_call_is_refused_in_its_own_format_by_what_names_it(
    gateway: Build, path: str, body: Any, tool: Any, scope: Any, value: str, stopped: bool
) -> None:
    world = gateway(YAML)
    world.kill(scope, value)
    response = world.call("POST", path, {**body, "model": "sim-ok", "tools": [tool(REFUND)]})
    assert bool(world.upstream.exchanges) != stopped
    if stopped:
        assert is_killed_refusal(response)
        (error,) = world.recorder.errors
        assert (error.error_type, error.recovery_action) == ("refused", "refused")
        assert spent(world) == 0
        assert not world.clock.pending


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/embeddings"), ("POST", "/v1/files")])
def test_no_other_path_leads_past_it(gateway: Build, method: str, path: str) -> None:
    world = gateway(YAML)
    world.kill("all")
    response = world.call(method, path, {"model": "sim-ok", "input": "hello"} if method == "POST" else None)
    assert not world.upstream.exchanges
    assert response.status in (403, 404)


def test_an_agent_is_stopped_by_the_name_that_it_gives_and_by_the_one_of_its_configuration(gateway: Build) -> None:
    world = gateway("agents: {default: {routes: {'*': [simulated/*]}}}")
    body = {"model": "sim-ok", "messages": SAID}
    world.kill("agent", "night-job")
    assert world.call("POST", "/v1/chat/completions", body, {"x-holdfast-agent": "night-job"}).status == 403
    world.call("POST", "/v1/chat/completions", body, {"x-holdfast-agent": "day-job"})
    assert len(world.upstream.exchanges) == 1
    world.kill("agent", "default")
    assert world.call("POST", "/v1/chat/completions", body, {"x-holdfast-agent": "day-job"}).status == 403


def test_a_killed_target_is_passed_over_and_a_killed_name_is_refused(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'smart': [simulated/first, openai/second]}}}")
    body = {"model": "smart", "messages": SAID}
    world.kill("model", "first")
    world.call("POST", "/v1/chat/completions", body)
    assert b'"second"' in world.upstream.latest.request.body
    world.kill("model", "second")
    assert is_killed_refusal(world.call("POST", "/v1/chat/completions", body))
    world.kill_switch.resume()
    world.kill("model", "smart")
    assert is_killed_refusal(world.call("POST", "/v1/chat/completions", body))
    assert len(world.upstream.exchanges) == 1


def test_a_canned_reply_is_refused_too(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [{reply: 'Later.'}]}}}")
    world.kill("all")
    assert is_killed_refusal(world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID}))


@pytest.mark.parametrize("mode", ["drain", "cut"])
def test_a_call_that_waits_to_be_tried_again_is_refused_at_once(gateway: Build, mode: Any) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID})
    world.upstream.latest.answer(b'{"error":{}}', 500)
    assert not response.over
    world.kill("agent", "support", mode)
    assert is_killed_refusal(response)
    world.clock.advance(600 * SECOND)
    assert len(world.upstream.exchanges) == 1
    assert spent(world) == 0


def test_a_retry_is_checked_even_where_nobody_told_the_call(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID})
    world.upstream.latest.answer(b'{"error":{}}', 500)
    carry_out, world.application.kills_changed = world.application.kills_changed, lambda: None  # type: ignore[method-assign]
    world.kill("all")
    world.application.kills_changed = carry_out  # type: ignore[method-assign]
    world.clock.advance(60 * SECOND)
    assert is_killed_refusal(response)
    assert len(world.upstream.exchanges) == 1


def test_a_call_that_waits_for_the_ledger_is_refused_and_takes_nothing(gateway: Build) -> None:
    world = gateway(YAML)
    world.ledger.delay_ns = SECOND
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID})
    world.kill("all")
    assert is_killed_refusal(response)
    world.clock.advance(2 * SECOND)
    world.ledger.delay_ns = 0
    assert not world.upstream.exchanges
    assert spent(world) == 0


def test_a_target_that_is_killed_while_the_ledger_is_asked_is_passed_over(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'smart': [simulated/first, simulated/second]}}}\nlimits: [{usd: 1, per: total}]")
    world.ledger.delay_ns = SECOND
    world.call("POST", "/v1/chat/completions", {"model": "smart", "messages": SAID, "max_tokens": 500})
    world.kill("model", "first")
    world.clock.advance(2 * SECOND)
    (exchange,) = world.upstream.exchanges
    assert b'"second"' in exchange.request.body


def test_a_request_that_waits_for_its_connection_is_not_sent(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID, "max_tokens": 500})
    assert not world.upstream.latest.request.withdrawn()
    world.kill("all")
    assert world.upstream.latest.request.withdrawn()
    world.upstream.latest.fail(Withdrawn("nothing was sent"))
    assert is_killed_refusal(response)
    assert not world.recorder.api_calls
    assert spent(world) == 0


@FORMATS
def test_a_stream_is_cut_in_its_own_format_and_settled(gateway: Build, path: str, body: Any, tool: Any) -> None:
    world = gateway(YAML)
    pieces = answer_of_the_provider(path, {**body, "model": "sim-tokens-40", "stream": True})
    response = world.call("POST", path, {**body, "model": "sim-tokens-40", "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(*pieces[: len(pieces) // 2], pieces[len(pieces) // 2][:7])
    world.kill("all", mode="cut")
    assert response.status == 200
    assert ends_in_a_killed_error(response)
    assert world.upstream.latest.cancelled
    (decision,), (error,), (call,) = world.recorder.decisions, world.recorder.errors, world.recorder.api_calls
    assert (decision.complete, error.error_type, call.error_id) == (False, "refused", error.error_id)
    assert decision.answer
    assert 0 < spent(world) == decision.cost
    assert not world.clock.pending


@FORMATS
def test_a_stream_that_drains_comes_to_its_end(gateway: Build, path: str, body: Any, tool: Any) -> None:
    world = gateway(YAML)
    pieces = answer_of_the_provider(path, {**body, "model": "sim-tokens-40", "stream": True})
    response = world.call("POST", path, {**body, "model": "sim-tokens-40", "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(*pieces[:5])
    world.kill("all")
    world.upstream.latest.data(*pieces[5:])
    world.upstream.latest.end()
    assert (response.ended, response.body) == (True, b"".join(pieces))
    assert is_killed_refusal(world.call("POST", path, {**body, "model": "sim-ok"}))


@FORMATS
@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_of_which_nothing_went_out_is_cut_to_a_refusal(gateway: Build, path: str, body: Any, tool: Any, streamed: bool) -> None:
    world = gateway(YAML)
    response = world.call("POST", path, {**body, "model": "sim-ok", "stream": streamed})
    world.kill("release", "unreleased", "cut")
    assert is_killed_refusal(response)
    assert world.upstream.latest.cancelled
    assert [error.error_type for error in world.recorder.errors] == ["refused"]
    assert spent(world) > 500 * 4000  # the provider may have worked: the worst case


def test_what_does_not_name_a_call_leaves_it_alone(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID})
    world.kill("agent", "billing", "cut")
    world.kill("tool", "refund", "cut")
    world.upstream.latest.answer(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}')
    assert response.status == 200


@FORMATS
def test_a_whole_answer_that_calls_a_killed_tool_is_settled_and_not_delivered(gateway: Build, path: str, body: Any, tool: Any) -> None:
    asked = {**body, "model": "sim-tool", "tools": [tool(REFUND), tool(LOOK_UP)]}
    (answer,) = answer_of_the_provider(path, asked)
    for killed, delivered in (("look_up", True), ("refund", False)):
        world = gateway(YAML)
        world.kill("tool", killed)
        response = world.call("POST", path, asked)
        world.upstream.latest.answer(answer)
        (decision,) = world.recorder.decisions
        assert (decision.chosen_action, decision.complete) == ("refund", delivered)
        assert decision.cost_source == "provider" and decision.cost == spent(world)
        if delivered:
            assert response.body == answer
        else:
            assert is_killed_refusal(response)
            assert b"arguments" not in response.body and b'"input"' not in response.body
            assert dict(response.headers)[b"x-holdfast-cost-usd"]
            assert [error.error_type for error in world.recorder.errors] == ["refused"]


@FORMATS
@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_a_stream_ends_before_the_event_that_names_a_killed_tool(gateway: Build, path: str, body: Any, tool: Any, size: int) -> None:
    asked = {**body, "model": "sim-tool", "stream": True, "tools": [tool(REFUND), tool(LOOK_UP)]}
    stream = b"".join(answer_of_the_provider(path, asked))
    for killed, delivered in (("look_up", True), ("refund", False)):
        world = gateway(YAML)
        world.kill("tool", killed)
        response = world.call("POST", path, asked)
        world.upstream.latest.start()
        world.upstream.latest.data(*(stream[at : at + size] for at in range(0, len(stream), size)))
        world.upstream.latest.end()
        if delivered:
            assert response.body == stream
            continue
        assert b"refund" not in response.body.replace(b"the tool refund", b"").replace(b'"value":"refund"', b"")
        assert is_killed_refusal(response) if response.status == 403 else ends_in_a_killed_error(response)
        assert world.upstream.latest.cancelled or size == 10**6
        (decision,) = world.recorder.decisions
        assert (decision.complete, decision.cost) == (False, spent(world))


@FORMATS
def test_a_tool_that_is_killed_while_its_call_streams_ends_it_only_by_cutting(gateway: Build, path: str, body: Any, tool: Any) -> None:
    asked = {**body, "model": "sim-tool", "stream": True, "tools": [tool(REFUND)]}
    pieces = answer_of_the_provider(path, asked)
    named = next(at for at, piece in enumerate(pieces) if b"refund" in piece) + 1
    assert named < len(pieces)
    for mode in ("drain", "cut"):
        world = gateway(YAML)
        response = world.call("POST", path, asked)
        world.upstream.latest.start()
        world.upstream.latest.data(*pieces[:named])
        world.kill("tool", "refund", mode)  # type: ignore[arg-type]
        world.upstream.latest.data(*pieces[named:])
        world.upstream.latest.end()
        if mode == "drain":
            assert (response.ended, response.body) == (True, b"".join(pieces))
        else:
            assert ends_in_a_killed_error(response) and world.upstream.latest.cancelled


def test_a_killed_tool_in_any_choice_is_found(gateway: Build) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "refund", "arguments": "{}"}}
    choices = [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}},
        {"index": 1, "message": {"role": "assistant", "tool_calls": [call]}},
    ]
    world = gateway(YAML)
    world.kill("tool", "refund")
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID, "n": 2, "max_tokens": 500})
    world.upstream.latest.answer(json.dumps({"choices": choices}).encode())
    assert is_killed_refusal(response)
    response = world.call("POST", "/v1/chat/completions", {"model": "m", "messages": SAID, "n": 2, "max_tokens": 500, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n')
    for name in ("re", "fund"):
        delta = {"tool_calls": [{"index": 0, "function": {"name": name, "arguments": ""}}]}
        world.upstream.latest.data(b"data: " + json.dumps({"choices": [{"index": 1, "delta": delta}]}).encode() + b"\n\n")
    assert ends_in_a_killed_error(response)


@pytest.mark.parametrize(
    ("path", "body", "offered"),
    [
        ("/v1/responses", {"input": SAID}, {"type": "web_search_preview"}),
        ("/v1/responses", {"input": SAID}, {"type": "mcp", "server_label": "web_search"}),
        ("/v1/messages", {"messages": SAID, "max_tokens": 500}, {"type": "web_search_20250305", "name": "web_search"}),
    ],
)
def test_a_killed_tool_that_the_provider_runs_is_stopped_at_the_request(gateway: Build, path: str, body: Any, offered: Any) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}}}")
    world.kill("tool", "web")
    world.call("POST", path, {**body, "model": "m", "tools": [offered]})
    assert len(world.upstream.exchanges) == 1
    world.kill("tool", "web_search")
    assert is_killed_refusal(world.call("POST", path, {**body, "model": "m", "tools": [offered]}))
    assert len(world.upstream.exchanges) == 1


def test_nothing_is_kept_of_calls_that_have_ended(gateway: Build) -> None:
    world = gateway(YAML)
    in_progress = world.application._parts.in_progress
    body = {"model": "m", "messages": SAID}
    world.call("POST", "/v1/chat/completions", body)
    world.upstream.latest.answer(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}]}')
    world.call("POST", "/v1/chat/completions", b"not json")
    world.call("POST", "/v1/chat/completions", body).leave()
    world.kill("all")
    world.call("POST", "/v1/chat/completions", body)
    assert not in_progress
