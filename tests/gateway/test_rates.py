"""Rates at the gateway: who waits, who is refused and how, what a provider's own headers hold back."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed
from holdfast.execution.upstream import Headers
from holdfast.testing import MemoryResponse
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
AGENT = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}, timeouts: {total: 30s}}}\n"
ROUTE = "agents: {a: {routes: {'*': [simulated/first, simulated/second]}, retries: {max: 0}, timeouts: {total: 30s}}}\n"
JSON = (b"content-type", b"application/json")


def chat(world: MemoryGateway, **more: Any) -> MemoryResponse:
    return world.call("POST", "/v1/chat/completions", {**CHAT, **more})


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


def error_of(response: MemoryResponse) -> dict[str, Any]:
    body: Any = response.json()
    error: dict[str, Any] = body["error"]
    return error


def left(remaining: int, reset: str = "59s", limit: int = 60) -> Headers:
    said = (("limit", str(limit)), ("remaining", str(remaining)), ("reset", reset))
    return (JSON, *((f"x-ratelimit-{field}-requests".encode(), value.encode()) for field, value in said))


def test_a_call_beyond_the_rate_waits_for_its_turn_and_is_on_record_as_queued(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 60, per: minute, burst: 1}]")
    first, second = chat(world), chat(world)
    assert len(world.upstream.exchanges) == 1
    world.upstream.latest.answer(ANSWER)
    world.clock.advance(SECOND)
    assert len(world.upstream.exchanges) == 2
    world.upstream.latest.answer(ANSWER)
    assert (first.status, second.status) == (200, 200)
    (queued,) = world.recorder.errors
    assert (queued.error_type, queued.recovery_action, queued.severity) == ("rate_limit", "queued", "info")
    assert queued.message == "waited 1.000 s for the rate everything: 60 requests per minute, 1 at once"
    assert [decision.recovery_action for decision in world.recorder.decisions] == ["none", "queued"]


@pytest.mark.parametrize("path", CALLS)
def test_a_rate_that_refuses_does_so_with_429_and_says_when_to_come_again(gateway: Build, path: str) -> None:
    world = gateway(AGENT + "rates: [{requests: 30, per: minute, burst: 1, on_excess: refuse}]")
    world.call("POST", path, CALLS[path])
    response = world.call("POST", path, CALLS[path])
    assert (response.status, len(world.upstream.exchanges)) == (429, 1)
    assert [header(response, name) for name in ("retry-after", "x-should-retry", "x-holdfast-refusal")] == [
        "2",
        "true",
        "rate_limit_reached",
    ]
    error = error_of(response)
    assert error["type"] == "rate_limit_error"
    assert (error["amount"], error["per_s"], error["burst"], error["retry_after_s"]) == (30, 60, 1, 2)
    assert "everything: 30 requests per minute, 1 at once is used up; send the call again in 2 s" in error["message"]
    assert [(error.error_type, error.recovery_action) for error in world.recorder.errors] == [("refused", "refused")]


def test_a_refusal_longer_than_an_sdk_should_sit_out_is_not_to_be_retried(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 1, per: hour, on_excess: refuse}]")
    chat(world)
    response = chat(world)
    assert (header(response, "retry-after"), header(response, "x-should-retry")) == ("3600", "false")


def test_a_call_waits_only_as_long_as_its_total_time_out_leaves_room(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 2, per: minute, burst: 1, max_wait: 5m}]")
    chat(world)
    response = chat(world)
    assert (response.status, header(response, "retry-after")) == (429, "30")
    assert "no room for as long as this call may wait" in error_of(response)["message"]


def test_a_waiting_call_holds_no_money_and_a_limit_reached_meanwhile_gives_its_turn_back(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 60, per: minute, burst: 1}]\nlimits: [{calls: 2, per: hour}]")
    chat(world)
    waiting, later = chat(world), chat(world)
    assert [account.reserved for account in world.limiter._all_accounts()] == [1]
    world.clock.advance(SECOND)
    assert [account.reserved for account in world.limiter._all_accounts()] == [2]
    world.clock.advance(SECOND)
    assert (waiting.over, later.status, len(world.upstream.exchanges)) == (False, 402, 2)
    assert world.rates.waiting == 0


def test_a_call_that_a_limit_refuses_uses_up_no_rate(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 1, per: hour, burst: 2, on_excess: refuse}]\nlimits: [{calls: 1, per: hour, scope: user}]")
    assert [chat(world, user=user).status for user in ("ann", "ann", "bob", "cid")] == [0, 402, 0, 429]


def test_a_client_that_leaves_is_out_of_the_queue_at_once(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 60, per: minute, burst: 1}]")
    chat(world)
    gone, stays = chat(world), chat(world)
    gone.leave()
    assert world.rates.waiting == 1
    assert [error.error_type for error in world.recorder.errors] == ["cancelled"]
    world.clock.advance(SECOND)
    assert len(world.upstream.exchanges) == 2
    world.upstream.latest.answer(ANSWER)
    assert stays.status == 200


def test_users_are_counted_apart_and_agents_under_the_providers_own_rate(gateway: Build) -> None:
    world = gateway(AGENT.replace("retries", "rates: [{requests: 1, per: hour, scope: user, on_excess: refuse}], retries"))
    assert [chat(world, user=user).status for user in ("ann", "bob", "ann")] == [0, 0, 429]
    shared = gateway(
        "  own: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', rates: [{requests: 2, per: hour, burst: 2, on_excess: refuse}]}\n"
        "agents: {a: {routes: {'*': [own/*]}}, b: {routes: {'*': [own/*]}}}\n"
    )
    statuses = [shared.call("POST", "/v1/chat/completions", CHAT, {"x-holdfast-agent": name}).status for name in "aba"]
    assert statuses == [0, 0, 429]


def test_tokens_are_estimated_before_and_corrected_after(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{tokens: 60000, per: hour, burst: 1000, on_excess: refuse}]")
    for _ in range(60):  # 15 tokens each; the estimate falls from 270 towards that
        assert chat(world).status == 0
        world.upstream.latest.answer(ANSWER)
    assert chat(world, max_tokens=10).status == 0
    world.upstream.latest.answer(ANSWER.replace(b'"completion_tokens":5', b'"completion_tokens":5000'))
    response = chat(world, max_tokens=10)
    assert response.status == 429 and int(header(response, "retry-after") or 0) > 240


def test_a_connection_that_never_was_gives_its_turn_back_and_so_do_the_tokens_of_an_error(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{requests: 1, per: hour, on_excess: refuse}]")
    chat(world)
    world.upstream.latest.fail(ConnectFailed("refused"))
    assert chat(world).status == 0
    tokens = gateway(AGENT + "rates: [{tokens: 300, per: hour, burst: 300, on_excess: refuse}]")
    for _ in range(3):
        assert chat(tokens, max_tokens=250).status == 0
        tokens.upstream.latest.answer(b"{}", 500)


def test_after_retry_after_the_provider_is_left_alone_by_everybody(gateway: Build) -> None:
    world = gateway(AGENT)
    first = chat(world)
    world.upstream.latest.answer(b'{"error":{}}', 429, (JSON, (b"retry-after", b"7")))
    second, other_model = chat(world), chat(world, model="other")
    assert (first.status, second.over, len(world.upstream.exchanges)) == (429, False, 2)
    world.clock.advance(7 * SECOND - 1)
    assert len(world.upstream.exchanges) == 2
    world.clock.advance(1)
    assert (len(world.upstream.exchanges), other_model.over) == (3, False)


def test_a_provider_that_is_closed_for_longer_than_a_call_may_take_is_a_429_with_its_time(gateway: Build) -> None:
    world = gateway(AGENT)
    chat(world)
    world.upstream.latest.answer(b'{"error":{}}', 429, (JSON, (b"retry-after", b"50")))
    response = chat(world)
    assert (response.status, header(response, "retry-after"), header(response, "x-should-retry")) == (429, "50", "true")
    assert error_of(response)["code"] == "provider_rate_limited"


def test_where_another_target_can_serve_the_call_it_does_not_wait_for_the_provider(gateway: Build) -> None:
    world = gateway(ROUTE)
    chat(world)
    world.upstream.latest.answer(b'{"error":{}}', 429, (JSON, (b"retry-after", b"7")))
    world.upstream.latest.answer(ANSWER)
    response = chat(world)
    world.upstream.latest.answer(ANSWER)
    assert header(response, "x-holdfast-served-by") == "simulated/second"
    assert [b'"first"' in exchange.request.body for exchange in world.upstream.exchanges] == [True, False, False]


def test_what_the_headers_leave_is_not_exceeded_before_the_provider_has_to_say_so(gateway: Build) -> None:
    world = gateway(AGENT)
    chat(world)
    world.upstream.latest.answer(ANSWER, headers=left(2))
    for _ in range(4):
        chat(world)
    assert len(world.upstream.exchanges) == 3
    world.clock.advance(2 * SECOND)
    assert len(world.upstream.exchanges) == 4
    world.clock.advance(2 * SECOND)
    assert len(world.upstream.exchanges) == 5


def test_a_streams_headers_are_heeded_as_soon_as_it_begins(gateway: Build) -> None:
    world = gateway(AGENT)
    chat(world, stream=True)
    world.upstream.latest.start(headers=((b"content-type", b"text/event-stream"), *left(0, "60s")[1:]))
    world.upstream.latest.data(HELLO)
    chat(world)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(SECOND)
    assert len(world.upstream.exchanges) == 2


def test_a_retry_waits_for_its_turn_too(gateway: Build) -> None:
    world = gateway(AGENT.replace("max: 0", "max: 1") + "rates: [{requests: 60, per: minute, burst: 1}]")
    chat(world)
    world.upstream.latest.answer(b'{"error":{}}', 500)
    world.clock.advance(SECOND - 1)
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(1)
    assert len(world.upstream.exchanges) == 2


def test_counting_tokens_uses_none_and_says_nothing_of_the_limits_of_messages(gateway: Build) -> None:
    world = gateway(AGENT + "rates: [{tokens: 1, per: hour, on_excess: refuse}]")
    for _ in range(3):
        assert world.call("POST", "/v1/messages/count_tokens", CALLS["/v1/messages"]).status == 0
    world.upstream.latest.answer(b"{}", 429, (JSON, (b"retry-after", b"9")))
    assert not world.call("POST", "/v1/messages", CALLS["/v1/messages"]).over


def test_a_defect_while_its_turn_comes_is_told_to_the_agent(gateway: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    world = gateway(AGENT + "rates: [{requests: 60, per: minute, burst: 1}]")
    chat(world)
    broken, healthy = chat(world), chat(world)
    with monkeypatch.context() as patch:
        patch.setattr(world.limiter, "reserve", lambda *_: 1 / 0)
        world.clock.advance(SECOND)
    assert broken.status == 500
    world.clock.advance(SECOND)
    world.upstream.latest.answer(ANSWER)
    assert healthy.status == 200


def test_without_rates_nothing_is_kept_of_a_provider_that_says_nothing(gateway: Build) -> None:
    world = gateway(AGENT)
    for _ in range(3):
        chat(world)
        world.upstream.latest.answer(ANSWER)
    assert world.rates._pool_table._words[0] == 0  # type: ignore[attr-defined]
