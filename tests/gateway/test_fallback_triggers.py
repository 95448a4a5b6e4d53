"""What makes another target take over, beyond errors: limits reached, prompts too long, content refused; and what never does."""

from collections.abc import Callable

import msgspec
import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.testing import MemoryResponse
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
TWO = "routes: {'*': [openai/gpt-4o, simulated/small]}, retries: {max: 2}"


def said(text: str, finish_reason: str = "stop") -> bytes:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return msgspec.json.encode({"id": "c", "model": "m", "choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})


def header(response: MemoryResponse, name: str) -> str | None:
    return next((value.decode() for key, value in response.headers if key == name.encode()), None)


def actions(world: MemoryGateway) -> list[str]:
    return [error.recovery_action for error in world.recorder.errors]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}),
        (400, {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}),
        (413, {"type": "request_too_large", "message": "Request exceeds the maximum size"}),
    ],
)
def test_a_prompt_that_is_too_long_for_one_model_goes_to_the_next(gateway: Build, status: int, error: dict[str, str]) -> None:
    world = gateway(f"agents: {{a: {{{TWO}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(msgspec.json.encode({"error": error}), status)
    world.upstream.latest.answer(said("hi"))
    assert (response.status, header(response, "x-holdfast-served-by")) == (200, "simulated/small")
    assert actions(world) == ["fell_back"] and world.recorder.decisions[0].recovery_action == "fell_back"


def test_a_refusal_for_the_contents_sake_stands_unless_the_agent_asks_for_another_model(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{TWO}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(said("", "content_filter"))
    assert (response.status, len(world.upstream.exchanges)) == (200, 1)


def test_a_declined_answer_that_no_other_target_can_replace_is_a_decision_all_the_same(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{TWO}, fallback: {{content_filter: true}}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.kill("model", "small")
    world.upstream.latest.answer(said("", "content_filter"))
    assert (response.status, header(response, "x-holdfast-served-by")) == (200, "openai/gpt-4o")
    assert [decision.finish_reason for decision in world.recorder.decisions] == ["content_filter"]


@pytest.mark.parametrize("answer", [said("", "content_filter"), b'{"error":{"code":"content_filter","message":"filtered"}}'])
def test_content_that_one_model_refuses_goes_to_the_next_where_the_agent_asks_for_it(gateway: Build, answer: bytes) -> None:
    world = gateway(f"agents: {{a: {{{TWO}, fallback: {{content_filter: true}}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(answer, 400 if b"error" in answer else 200)
    world.upstream.latest.answer(said("hi"))
    assert (response.status, header(response, "x-holdfast-served-by")) == (200, "simulated/small")
    assert actions(world) == ["fell_back"]


def test_the_last_targets_refusal_is_the_answer(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{TWO}, fallback: {{content_filter: true}}}}}}")
    response = world.call("POST", CHAT, QUESTION)
    for _ in range(2):
        world.upstream.latest.answer(said("", "content_filter"))
    assert (response.status, response.json()["choices"][0]["finish_reason"]) == (200, "content_filter")  # type: ignore[index]


def test_what_the_dear_model_may_not_cost_any_more_the_cheap_one_may(gateway: Build) -> None:
    limits = "limits: [{usd: 0.01, per: day}]"
    prices = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hello"}]}
    world = gateway(f"agents: {{a: {{routes: {{'*': [openai/gpt-4, simulated/small]}}, {limits}}}}}")
    response = world.call("POST", CHAT, {**prices, "max_tokens": 1})
    world.upstream.latest.answer(said("hi"))
    assert header(response, "x-holdfast-served-by") == "simulated/small", "gpt-4 reads 700 tokens for more than that"
    assert actions(world) == ["fell_back"] and len(world.recorder.refusals) == 1 and not world.refused


def test_a_limit_that_no_target_fits_into_is_a_refusal_with_its_numbers(gateway: Build) -> None:
    world = gateway(f"agents: {{a: {{{TWO}, limits: [{{calls: 1, per: day}}]}}}}")
    world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(said("hi"))
    response = world.call("POST", CHAT, QUESTION)
    assert (response.status, header(response, "x-should-retry")) == (402, "false")
    assert len(world.refused) == 1 and len(world.upstream.exchanges) == 1


def test_a_reached_limit_ends_in_the_routes_own_reply_and_is_reported_all_the_same(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/m, {reply: 'We will write.'}]}, limits: [{calls: 1, per: day}]}}")
    world.call("POST", CHAT, QUESTION)
    world.upstream.latest.answer(said("hi"))
    response = world.call("POST", CHAT, QUESTION)
    assert (response.status, header(response, "x-holdfast-served-by")) == (200, "reply")
    assert (actions(world), len(world.refused)) == (["canned"], 1)
    assert world.recorder.decisions[-1].recovery_action == "canned"


def test_retries_that_the_sdk_says_it_made_are_counted(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 2}}}")
    response = world.call("POST", CHAT, QUESTION, {"x-stainless-retry-count": "1"})
    world.upstream.latest.answer(b"{}", 500)
    world.clock.advance(SECOND)
    world.upstream.latest.answer(b"{}", 500)
    assert (response.status, header(response, "x-should-retry")) == (500, "false")
    assert [call.retry_count for call in world.recorder.api_calls] == [1, 2]


def test_in_an_outage_retries_end_when_their_allowance_does(gateway: Build) -> None:
    world = gateway("breakers: off\nagents: {a: {routes: {'*': [simulated/*]}, retries: {max: 1, share: 0%}}}")
    calls = [world.call("POST", CHAT, QUESTION) for _ in range(30)]
    for exchange in list(world.upstream.exchanges):
        exchange.answer(b"{}", 500)
    world.clock.advance(500 * MILLISECOND)
    assert len(world.upstream.exchanges) == 40, "ten retries are free, no call earns any"
    for exchange in world.upstream.exchanges[30:]:
        exchange.answer(b"{}", 500)
    assert all(call.status == 500 for call in calls)


def test_all_attempts_at_a_target_carry_one_key_where_the_provider_knows_such_keys(gateway: Build) -> None:
    world = gateway(
        "  keyed: {kind: compatible, base_url: 'http://127.0.0.1:9/v1', idempotency_header: Idempotency-Key}\n"
        "agents: {a: {routes: {'*': [keyed/*, simulated/*]}, retries: {max: 1}}}"
    )
    world.call("POST", CHAT, QUESTION)
    for _ in range(2):
        world.upstream.latest.answer(b"{}", 500)
        world.clock.advance(500 * MILLISECOND)
    keys = [dict(exchange.request.headers).get(b"idempotency-key") for exchange in world.upstream.exchanges]
    assert keys[0] is not None
    assert keys == [keys[0], keys[0], None]


def test_what_only_the_other_format_finds_malformed_is_a_400_with_the_field(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [anthropic/claude-sonnet-4-5]}}}")
    response = world.call("POST", CHAT, {**QUESTION, "temperature": "hot"})
    assert (response.status, response.json()["error"]["param"]) == (400, "temperature")  # type: ignore[index]
    assert not world.upstream.exchanges
