"""Hedged requests: a second attempt beside a silent first, only inside the limits; the loser is cancelled and settled."""

from collections.abc import Callable

import msgspec
import pytest

from holdfast.clock import SECOND
from holdfast.errors import ConnectFailed
from holdfast.testing.memory_gateway import MemoryGateway
from holdfast.testing.upstream import MemoryExchange

Build = Callable[[str], MemoryGateway]

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hello"}]}
STREAMED = {**QUESTION, "stream": True}
HEDGED = "agents: {a: {routes: {'*': [simulated/*]}, hedge: {after: 2s}, retries: {max: 0}, limits: [{usd: 1, per: day}]}}"
HELLO = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'
END = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}\n\ndata: [DONE]\n\n'
ANSWER = msgspec.json.encode(
    {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    }
)


def reserved(world: MemoryGateway) -> int:
    return sum(account.reserved for book in world.limiter._books.values() for account in book.accounts.values())


def two_attempts(world: MemoryGateway) -> tuple[MemoryExchange, MemoryExchange]:
    assert len(world.upstream.exchanges) == 1
    world.clock.advance(2 * SECOND)
    first, second = world.upstream.exchanges
    return first, second


@pytest.mark.parametrize("winner", [0, 1])
def test_whichever_answers_first_serves_the_call_and_the_other_is_cancelled_and_settled(gateway: Build, winner: int) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    attempts = two_attempts(world)
    attempts[winner].answer(ANSWER)
    assert (response.status, response.body) == (200, ANSWER)
    assert attempts[1 - winner].cancelled
    assert reserved(world) == 0
    assert [call.cost_source for call in world.recorder.api_calls] == ["bound", "provider"], "nobody knows what the loser has cost"
    assert [call.attempt for call in world.recorder.api_calls] == [2 - winner, 1 + winner], "numbered as they began, told as they ended"
    assert [error.recovery_action for error in world.recorder.errors] == ["hedged"]
    assert world.recorder.decisions[0].recovery_action == "hedged"


@pytest.mark.parametrize("winner", [0, 1])
def test_of_two_streams_the_one_with_the_first_token_is_passed_on(gateway: Build, winner: int) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, STREAMED)
    attempts = two_attempts(world)
    for attempt in attempts:
        attempt.start()
    attempts[winner].data(HELLO)
    assert attempts[1 - winner].cancelled and response.body == HELLO
    attempts[winner].data(END)
    attempts[winner].end()
    assert response.ended and reserved(world) == 0


def test_a_quick_answer_needs_no_second_attempt(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(SECOND)
    world.upstream.latest.answer(ANSWER)
    world.clock.advance(10 * SECOND)
    assert response.status == 200 and len(world.upstream.exchanges) == 1


def test_one_that_fails_leaves_the_call_to_the_other(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    first, second = two_attempts(world)
    first.fail(ConnectFailed("reset"))
    assert not response.over
    second.answer(ANSWER)
    assert response.status == 200
    assert [error.recovery_action for error in world.recorder.errors] == ["hedged"]


def test_where_both_fail_so_does_the_call(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    for attempt in two_attempts(world):
        attempt.answer(b"{}", 500)
    assert response.status == 500 and reserved(world) == 0


def test_a_limit_without_room_for_a_second_attempt_leaves_the_first_alone(gateway: Build) -> None:
    world = gateway("agents: {a: {routes: {'*': [simulated/*]}, hedge: {after: 2s}, limits: [{calls: 1, per: day}]}}")
    response = world.call("POST", CHAT, QUESTION)
    world.clock.advance(10 * SECOND)
    world.upstream.latest.answer(ANSWER)
    assert response.status == 200 and len(world.upstream.exchanges) == 1


def test_the_clients_leaving_cancels_both(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    attempts = two_attempts(world)
    response.leave()
    assert all(attempt.cancelled for attempt in attempts) and reserved(world) == 0


def test_a_cut_stops_both(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    attempts = two_attempts(world)
    world.kill("all", mode="cut")
    assert response.status == 403 and all(attempt.cancelled for attempt in attempts) and reserved(world) == 0


def test_after_a_kill_no_second_attempt_begins(gateway: Build) -> None:
    world = gateway(HEDGED)
    response = world.call("POST", CHAT, QUESTION)
    world.kill("all", mode="drain")
    world.clock.advance(10 * SECOND)
    world.upstream.latest.answer(ANSWER)
    assert response.status == 200 and len(world.upstream.exchanges) == 1
