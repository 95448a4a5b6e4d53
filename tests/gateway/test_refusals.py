"""What the gateway denies, in whose words, and that nothing was spent on it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import ConnectFailed, StorageError
from holdfast.testing import MemoryResponse, request
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

SAY: Any = [{"role": "user", "content": "hello"}]
CALLS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "m", "messages": SAY},
    "/v1/responses": {"model": "m", "input": "hello"},
    "/v1/embeddings": {"model": "m", "input": "hello"},
    "/v1/messages": {"model": "m", "messages": SAY, "max_tokens": 100},
}
CHAT = CALLS["/v1/chat/completions"]
ANSWER = b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}'
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
SIMULATED = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}\n"


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


def told(response: MemoryResponse) -> dict[str, Any]:
    body: Any = response.json()
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize("path", CALLS)
def test_a_limit_that_is_reached_refuses_with_402_in_the_formats_own_words(gateway: Build, path: str) -> None:
    world = gateway(SIMULATED + "limits: [{calls: 1, per: hour}]")
    assert world.call("POST", path, CALLS[path]).status == 0
    response = world.call("POST", path, CALLS[path])
    assert response.status == 402 and len(world.upstream.exchanges) == 1
    assert (header(response, "x-should-retry"), header(response, "x-holdfast-refusal")) == ("false", "call_limit_reached")
    error = told(response)
    assert "everything: 1 calls per hour" in error["message"]
    assert (error["limit"], error["amount"], error["asked"]) == ("everything: 1 calls per hour", "1", "1")
    assert error["type"] == ("billing_error" if path == "/v1/messages" else "insufficient_quota")
    (refusal,) = world.recorder.refusals
    assert (refusal.unit, refusal.amount, refusal.spent, refusal.reserved, refusal.asked) == ("calls", 1, 0, 1, 1)
    assert [error.error_type for error in world.recorder.errors] == ["refused"]
    assert len(world.refused) == 1


def test_a_retry_that_a_limit_refuses_hands_the_failure_on(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 2}}}\nlimits: [{calls: 1, per: hour}]")
    response = world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"error":{}}', 500)
    world.clock.advance(10**9)
    assert (response.status, response.body, len(world.upstream.exchanges)) == (500, b'{"error":{}}', 1)
    assert len(world.recorder.refusals) == len(world.refused) == 1


def test_a_connection_that_never_was_costs_nothing_and_counts_no_call(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{calls: 1, per: hour}]")
    world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.fail(ConnectFailed("refused"))
    world.call("POST", "/v1/chat/completions", CHAT)
    assert len(world.upstream.exchanges) == 2


@pytest.mark.parametrize(
    ("path", "field", "given"),
    [
        ("/v1/chat/completions", "max_completion_tokens", 100_000),
        ("/v1/chat/completions", "max_tokens", 100_000),
        ("/v1/chat/completions", "max_completion_tokens", None),
        ("/v1/responses", "max_output_tokens", 100_000),
        ("/v1/responses", "max_output_tokens", None),
        ("/v1/messages", "max_tokens", 100_000),
    ],
)
def test_the_bound_of_output_is_lowered_or_inserted_to_what_the_remainder_pays(
    gateway: Build, path: str, field: str, given: int | None
) -> None:
    world = gateway(SIMULATED + "limits: [{usd: 0.01, per: total}]")
    body = {**CALLS[path], field: given} if given else {name: value for name, value in CALLS[path].items() if name != field}
    response = world.call("POST", path, body)
    sent = msgspec.json.decode(world.upstream.latest.request.body)
    assert 1000 < sent[field] < 2500  # 4 USD per million, less what the input may cost
    assert {**sent, field: None} == {**body, field: None}
    world.upstream.latest.answer(b'{"error":{}}', 400)
    assert header(response, "x-holdfast-clamped-max-tokens") == str(sent[field])


def test_a_bound_that_can_be_paid_is_left_as_the_agent_sent_it(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{usd: 10, per: total}]")
    body = b'{"model" : "m",  "messages":[{"role":"user","content":"hello"}], "max_tokens": 50, "new_field": [1.50]}'
    response = world.call("POST", "/v1/chat/completions", body)
    assert world.upstream.latest.request.body is body
    world.upstream.latest.answer(ANSWER)
    assert (header(response, "x-holdfast-clamped-max-tokens"), header(response, "x-holdfast-cost-usd")) == (None, "0.00003")


def test_a_remainder_below_any_answer_is_refused_instead_of_clamped(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{usd: 0.0001, per: total}]")
    response = world.call("POST", "/v1/chat/completions", CHAT)
    assert (response.status, told(response)["code"], len(world.upstream.exchanges)) == (402, "spend_limit_reached", 0)
    assert told(response)["amount"] == "0.0001"


def test_a_model_without_a_price_is_refused_under_a_spend_limit_and_only_there(gateway: Build) -> None:
    agents = "agents: {a: {routes: {'*': [unpriced/*]}, retries: {max: 0}}}\n"
    unpriced = "  unpriced: {kind: compatible, base_url: 'http://127.0.0.1:9/v1'}\n" + agents
    free_of_limits, limited = gateway(unpriced), gateway(unpriced + "limits: [{usd: 5, per: day}]")
    assert not free_of_limits.call("POST", "/v1/chat/completions", CHAT).over
    response = limited.call("POST", "/v1/chat/completions", CHAT)
    assert (response.status, told(response)["code"], len(limited.upstream.exchanges)) == (402, "model_without_price", 0)


def test_what_cannot_be_bounded_is_refused_under_a_spend_limit(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{usd: 5, per: day}]")
    response = world.call("POST", "/v1/responses", {"model": "m", "input": "more", "previous_response_id": "resp_unknown"})
    assert (response.status, told(response)["code"], len(world.upstream.exchanges)) == (402, "call_without_bound", 0)


def test_without_its_ledger_a_limit_refuses_with_503(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{calls: 5, per: hour}]")
    world.ledger.failing = StorageError("the disk is full")
    response = world.call("POST", "/v1/chat/completions", CHAT)
    assert (response.status, header(response, "x-should-retry"), header(response, "retry-after")) == (503, "false", "5")
    assert told(response)["code"] == "limits_unavailable" and not world.upstream.exchanges


@pytest.mark.parametrize("path", CALLS)
def test_an_unknown_key_is_refused_with_403_in_the_formats_own_words(gateway: Build, path: str) -> None:
    world = gateway("agents: {a: {key: env:UPSTREAM_KEY}}")
    response = world.call("POST", path, CALLS[path], {"authorization": "Bearer wrong"})
    assert (response.status, header(response, "x-should-retry"), told(response)["type"]) == (403, "false", "permission_error")
    assert not world.upstream.exchanges


def test_without_any_target_a_call_is_refused_with_503(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {only: [simulated/*], '*': [anthropic/*]}}}")
    response = world.call("POST", "/v1/embeddings", {"model": "m", "input": "text"})  # which Anthropic has not, and nobody can translate
    assert (response.status, told(response)["code"], header(response, "retry-after")) == (503, "no_target", "5")
    assert [error.recovery_action for error in world.recorder.errors] == ["refused"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", b'{"model": "m", "messages": [', None),
        ("/v1/chat/completions", b"", None),
        ("/v1/chat/completions", b"[]", None),
        ("/v1/chat/completions", b'{"model": "m\xff", "messages": []}', None),
        ("/v1/chat/completions", {"messages": SAY}, "model"),
        ("/v1/chat/completions", {"model": 7, "messages": SAY}, "model"),
        ("/v1/chat/completions", {"model": "m", "messages": []}, "messages"),
        ("/v1/chat/completions", {"model": "m", "messages": SAY, "max_tokens": "many"}, "max_tokens"),
        ("/v1/chat/completions", {"model": "m", "messages": SAY, "n": 0}, "n"),
        ("/v1/responses", {"model": "m", "input": 7}, "input"),
        ("/v1/responses", {"input": "x"}, "model"),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/messages", {"model": "m", "messages": SAY, "max_tokens": "many"}, "max_tokens"),
        ("/v1/messages", {"model": "m", "messages": "hello", "max_tokens": 5}, "messages"),
        ("/v1/messages/count_tokens", {"messages": SAY}, "model"),
    ],
)
def test_a_malformed_request_is_400_and_names_the_field(gateway: Build, path: str, body: Any, param: str | None) -> None:
    world = gateway("")
    response = world.call("POST", path, body)
    assert (response.status, told(response).get("param"), header(response, "x-should-retry")) == (400, param, "false")
    assert told(response)["type"] == "invalid_request_error" and not world.upstream.exchanges
    assert [(error.error_type, error.recovery_action) for error in world.recorder.errors] == [("parsing", "refused")]


OPEN = "passthrough: [{path: '/*', price_per_call: 0.25}]"
OPENED = f"""  open: {{kind: compatible, base_url: 'http://127.0.0.1:9/v1', {OPEN}}}
  claude: {{kind: anthropic, base_url: 'http://127.0.0.1:9', api_key: env:UPSTREAM_KEY, {OPEN}}}
"""


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "/v1//chat/completions",
        "//v1/chat/completions",
        "/v1/%63hat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/./chat/completions",
        "/v1/files/../chat/completions",
        "/v1/files/%2e%2e/chat/completions",
        "/v1/files/%252e%252e/chat/completions",
        "/v1/chat/completions;x",
        "/v1/chat\\completions",
        "/V1/chat/completions",
        "/v1/Chat/Completions",
        "/Chat/completions",
        "/Responses",
        "/messages/",
        "/api/v1/chat/completions",
        "/v1/messages/count_tokens/",
    ],
)
@pytest.mark.parametrize("headers", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"])
def test_no_disguise_of_a_guarded_path_is_let_through_unread(gateway: Build, path: str, headers: dict[str, str]) -> None:
    world = gateway(OPENED)
    response = world.call("POST", path, CHAT, headers)
    assert (response.status, header(response, "x-should-retry"), world.upstream.exchanges) == (404, "false", [])
    assert told(response)["message"].startswith("Refused by Holdfast: POST ")


@pytest.mark.parametrize("path", CALLS)
def test_a_path_without_its_version_is_guarded_like_the_one_with_it(gateway: Build, path: str) -> None:
    world = gateway(SIMULATED + "limits: [{usd: 0.01, per: total}, {calls: 1, per: hour}]\n")
    world.call("POST", path.removeprefix("/v1"), CALLS[path])
    assert world.upstream.latest.request.target == path.encode()
    world.upstream.latest.answer(b'{"error":{}}', 400)
    assert [(call.target_api, call.decision_id != "") for call in world.recorder.api_calls] == [(f"simulated/m POST {path}", True)]
    assert world.call("POST", path.removeprefix("/v1"), CALLS[path]).status == 402


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_a_guarded_path_has_only_its_own_method(gateway: Build, method: str) -> None:
    world = gateway(OPENED)
    assert world.call(method, "/v1/chat/completions", CHAT).status == 404
    assert not world.upstream.exchanges


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..",
        "/v1/models/../files",
        "/v1/models/%2e%2e/files",
        "/v1/models/x%2F..%2F..%2Ffiles",
        "/v1/models//x",
        "/v1/models/a%255c",
    ],
)
def test_the_list_of_models_is_no_way_out_of_its_folder(gateway: Build, path: str) -> None:
    world = gateway("")
    assert world.call("GET", path).status == 404
    assert not world.upstream.exchanges


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-5", "/v1/models/meta%2Fllama", "/v1/models/meta/llama-3:8b?x=1"])
def test_models_are_asked_for_as_the_agent_wrote_it_and_cost_nothing(gateway: Build, path: str) -> None:
    world = gateway("limits: [{usd: 1, per: day}]")
    response = world.call("GET", path)
    assert world.upstream.latest.request.target == path.encode()
    world.upstream.latest.answer(b'{"data":[]}')
    assert (response.body, response.ended) == (b'{"data":[]}', True)
    assert [call.cost for call in world.recorder.api_calls] == [0]


def test_another_path_needs_the_configurations_leave(gateway: Build) -> None:
    world = gateway("")
    response = world.call("POST", "/v1/moderations", {"input": "x"})
    assert (response.status, told(response)["code"], world.upstream.exchanges) == (404, "unknown_path", [])


@pytest.mark.parametrize("path", ["/tools", "/jobs"])
def test_the_beginning_of_a_path_of_the_gateways_own_is_told_how_it_goes_on(gateway: Build, path: str) -> None:
    message = str(told(gateway("").call("GET", path))["message"])
    assert "/tools/NAME/" in message and "/jobs/ID" in message and "passthrough" not in message


def test_an_allowed_path_is_relayed_as_it_is_recorded_and_priced(gateway: Build) -> None:
    world = gateway(
        "  open: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', passthrough: [{path: '/v1/files*', price_per_call: 0.25}]}\n"
        "limits: [{usd: 0.5, per: total}]"
    )
    for _ in range(2):
        response = world.handle(request("POST", "/v1/files/a?b=c", b"\x00raw", {"content-type": "x/y", "x-holdfast-user": "u"}))
        sent = world.upstream.latest.request
        assert (sent.method, sent.target, sent.body) == (b"POST", b"/v1/files/a?b=c", b"\x00raw")
        assert (b"content-type", b"x/y") in list(sent.headers) and b"x-holdfast-user" not in dict(sent.headers)
        world.upstream.latest.answer(b"\x01answer", 201, ((b"content-type", b"z/z"), (b"content-encoding", b"br")))
        assert (response.status, response.body, header(response, "content-encoding")) == (201, b"\x01answer", "br")
        assert header(response, "x-holdfast-served-by") == "open"
    assert world.call("POST", "/v1/files/a", b"x").status == 402
    assert [call.cost for call in world.recorder.api_calls] == [250_000_000] * 2
    assert not world.recorder.decisions


def test_an_allowed_path_without_a_price_is_refused_under_a_spend_limit(gateway: Build) -> None:
    yaml = "  open: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', passthrough: [{path: '/v1/files'}]}\n"
    limited, unlimited = gateway(yaml + "limits: [{usd: 5, per: day}]"), gateway(yaml)
    response = limited.call("POST", "/v1/files", b"x")
    assert (response.status, told(response)["code"], limited.upstream.exchanges) == (402, "model_without_price", [])
    assert not unlimited.call("POST", "/v1/files", b"x").over


@pytest.mark.parametrize("path", CALLS)
def test_without_a_record_no_money_is_spent(gateway: Build, path: str) -> None:
    world = gateway(SIMULATED)
    world.recorder.failing = True
    response = world.call("POST", path, CALLS[path])
    assert (response.status, header(response, "x-should-retry"), header(response, "retry-after")) == (503, "false", "5")
    assert header(response, "x-holdfast-refusal") == "record_unavailable" and not world.upstream.exchanges
    world.recorder.failing = False
    assert not world.call("POST", path, CALLS[path]).over


def test_an_answer_that_cannot_be_recorded_is_not_given(gateway: Build) -> None:
    world = gateway(SIMULATED)
    whole, streamed = world.call("POST", "/v1/chat/completions", CHAT), world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    world.recorder.failing = True
    world.upstream.exchanges[0].answer(ANSWER)
    world.upstream.latest.data(b"data: [DONE]\n\n")
    world.upstream.latest.end()
    assert (whole.status, told(whole)["code"]) == (503, "record_unavailable")
    assert streamed.body.startswith(HELLO) and b"cannot be recorded" in streamed.body and b"[DONE]" not in streamed.body


def test_the_record_is_written_before_the_last_byte(gateway: Build) -> None:
    world = gateway(SIMULATED)
    written: list[int] = []
    response = MemoryResponse()
    end, response.end = response.end, lambda: written.append(len(world.recorder.decisions)) or end()  # type: ignore[func-returns-value, method-assign]
    world.application(request("POST", "/v1/chat/completions", {**CHAT, "stream": True}), response)
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO, b"data: [DONE]\n\n")
    assert (response.body, world.recorder.decisions) == (HELLO, [])
    world.upstream.latest.end()
    assert (written, response.body) == ([1], HELLO + b"data: [DONE]\n\n")


def test_pictures_are_reserved_as_the_model_counts_them_that_reads_them(gateway: Build) -> None:
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}
    inputs = {
        "/v1/chat/completions": {"model": "m", "messages": [picture], "max_tokens": 20},
        "/v1/responses": {
            "model": "m",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}],
            "max_output_tokens": 20,
        },
    }
    for path, body in inputs.items():
        world = gateway("agents: {a: {routes: {'*': [openai/gpt-4o-mini]}}}\nlimits: [{usd: 0.0073, per: hour}]")
        assert world.call("POST", path, body).status == 402  # 48,200 tokens of the picture at 0.15 USD per million, and the text
        assert not world.upstream.exchanges


def test_a_mark_to_watch_refuses_nothing_and_lowers_nothing(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.yaml"
    file.write_text("providers: {sim: {kind: simulated, base_url: 'http://127.0.0.1:9/v1'}}")
    world = MemoryGateway(load(file, {"COST_THRESHOLD_ALERT": "500"}).gateway)
    for body in ({**CHAT, "max_tokens": 10**12, "n": 10_000}, {**CHAT, "max_tokens": 5}, CHAT):
        assert world.call("POST", "/v1/chat/completions", body).status == 0
        assert msgspec.json.decode(world.upstream.latest.request.body) == body


def test_a_bound_that_the_target_would_not_read_goes_out_under_the_name_it_knows(gateway: Build) -> None:
    world = gateway("agents: {a: {}}\nlimits: [{usd: 5, per: hour}]")  # `openai` elsewhere than at OpenAI may be of any age
    world.call("POST", "/v1/chat/completions", {"model": "gpt-4o", "messages": SAY, "max_completion_tokens": 100})
    assert msgspec.json.decode(world.upstream.latest.request.body)["max_tokens"] == 100


@pytest.mark.parametrize("path", CALLS)
def test_more_calls_than_a_worker_may_hold_are_refused_with_503_and_cost_nothing(gateway: Build, path: str) -> None:
    world = gateway(SIMULATED)
    world.application.answering = lambda: 4097  # as many as it may hold, and this one
    response = world.call("POST", path, CALLS[path])
    assert (response.status, header(response, "x-holdfast-refusal")) == (503, "too_many_calls")
    assert header(response, "retry-after") is not None
    assert not world.upstream.exchanges
    assert world.call("GET", "/healthz").status == 200  # whoever watches must not take it for dead
    world.application.answering = lambda: 4096
    assert world.call("POST", path, CALLS[path]).status == 0


def test_calls_whose_client_left_count_for_as_long_as_they_wait(gateway: Build) -> None:
    world = gateway(SIMULATED + "limits: [{calls: 10000, per: hour}]")
    world.ledger.delay_ns = SECOND
    for _ in range(4096):
        world.handle(request("POST", "/v1/chat/completions", CHAT)).leave()
    response = world.call("POST", "/v1/chat/completions", CHAT)
    assert (response.status, header(response, "x-holdfast-refusal")) == (503, "too_many_calls")
    for _ in range(2):  # the ledger answers, and again to what was asked for meanwhile
        world.clock.advance(SECOND)
    world.call("POST", "/v1/chat/completions", CHAT)
    assert len(world.upstream.exchanges) == 1
