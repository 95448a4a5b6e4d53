"""The agent leaves, or reads slowly: the upstream hears of it at once, and what was spent is settled."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.policy.limit import Limit
from holdfast.testing.memory_gateway import MemoryGateway

Build = Callable[[str], MemoryGateway]

CHAT: Any = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1000}
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
YAML = "agents: {a: {routes: {'*': [simulated/*]}}}\nlimits: [{usd: 1, per: total}]"
TOTAL = Limit(scope="all", unit="usd", amount=10**9)
INPUT_BOUND_NANO = 10**6
"""More than the input of `CHAT` may cost: 1,000 tokens at 1 USD per million."""


def spent(world: MemoryGateway) -> int:
    """What the next refusal would show, read from the ledger after everything was given back."""
    world.limiter.close(lambda error: None)
    world.clock.advance(SECOND)
    return world.ledger.spent(TOTAL.account(""))


@pytest.mark.parametrize("streamed", [False, True])
def test_leaving_before_the_answer_cancels_it_and_counts_its_worst_case(gateway: Build, streamed: bool) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {**CHAT, "stream": streamed})
    response.leave()
    assert world.upstream.latest.cancelled
    (call,), (error,) = world.recorder.api_calls, world.recorder.errors
    assert (error.error_type, error.severity, call.error_id) == ("cancelled", "info", error.error_id)
    assert call.cost == spent(world) > 4 * 10**6
    assert not world.recorder.decisions and not world.clock.pending


def test_leaving_a_stream_counts_what_was_generated_and_records_what_was_said(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO, HELLO)
    response.leave()
    assert world.upstream.latest.cancelled
    (decision,) = world.recorder.decisions
    assert (decision.answer, decision.complete, decision.chosen_action) == ("HelloHello", False, "reply")
    assert decision.cost == spent(world)
    assert 4_000 * len("HelloHello") < decision.cost < 4_000 * len("HelloHello") + INPUT_BOUND_NANO


def test_leaving_a_model_that_thinks_in_secret_counts_its_worst_case(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [openai/gpt-5]}}}\nlimits: [{usd: 1, per: total}]")
    response = world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    response.leave()
    (decision,) = world.recorder.decisions
    assert decision.cost == spent(world) > 1000 * 10_000


def test_leaving_between_two_attempts_ends_the_call(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"error":{}}', 500)
    response.leave()
    world.clock.advance(60 * SECOND)
    assert len(world.upstream.exchanges) == 1
    assert [error.error_type for error in world.recorder.errors] == ["api_error", "cancelled"]
    assert spent(world) == 0


def test_nothing_waits_for_an_agent_that_has_left(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}}}")
    for fails in (True, False):
        response = world.call("POST", "/v1/chat/completions", CHAT)
        if fails:
            world.upstream.latest.answer(b'{"error":{}}', 500)
        assert world.clock.pending
        response.leave()
        assert not world.clock.pending


def test_leaving_while_the_ledger_is_asked_takes_nothing(gateway: Build) -> None:
    world = gateway(YAML)
    world.ledger.delay_ns = SECOND
    response = world.call("POST", "/v1/chat/completions", CHAT)
    response.leave()
    world.clock.advance(2 * SECOND)
    world.ledger.delay_ns = 0
    assert not world.upstream.exchanges
    assert [error.error_type for error in world.recorder.errors] == ["cancelled"]
    assert spent(world) == 0


def test_leaving_after_the_end_changes_nothing(gateway: Build) -> None:
    world = gateway(YAML)
    response = world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}')
    disconnected = response.disconnected
    assert disconnected is not None
    disconnected()
    assert (len(world.recorder.decisions), len(world.recorder.errors)) == (1, 0)
    assert spent(world) == 10 * 1000 + 5 * 4000


def test_a_request_that_comes_again_after_its_agent_left_continues_the_same_conversation(gateway: Build) -> None:
    world = gateway(YAML)
    world.call("POST", "/v1/chat/completions", CHAT).leave()
    world.call("POST", "/v1/chat/completions", CHAT)
    world.upstream.latest.answer(b'{"choices":[{"message":{"content":"hi"}}]}')
    assert len({event.interaction for event in (*world.recorder.api_calls, *world.recorder.decisions)}) == 1


def test_a_slow_reader_slows_its_upstream_and_is_not_called_idle(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, timeouts: {idle: 5s}}}")
    response = world.call("POST", "/v1/chat/completions", {**CHAT, "stream": True})
    world.upstream.latest.start()
    world.upstream.latest.data(HELLO)
    assert response.pausing is not None and response.resuming is not None
    response.pausing()
    world.clock.advance(60 * SECOND)
    assert world.upstream.latest.paused and not response.over
    response.resuming()
    assert not world.upstream.latest.paused
    world.upstream.latest.data(b"data: [DONE]\n\n")
    world.upstream.latest.end()
    assert response.ended
