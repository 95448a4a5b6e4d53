"""What becomes of calls while the limits cannot be checked: refused, or let through and said so."""

from collections.abc import Callable
from typing import Any

import pytest

from holdfast.errors import StorageError
from holdfast.gateway.options import GatewayOptions
from holdfast.testing.memory_gateway import MemoryGateway

CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
ANSWER = b'{"id":"c","choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5}}'
YAML = "agents: {a: {routes: {'*': [simulated/*]}, retries: {max: 0}}}\nlimits: [{calls: 1, per: hour}, {usd: 1, per: day}]"


def test_calls_are_refused_with_503_while_limits_cannot_be_checked(options_of: Callable[[str], GatewayOptions]) -> None:
    world = MemoryGateway(options_of(YAML))
    world.ledger.failing = StorageError("The disk is full; free some space.")
    response = world.call("POST", "/v1/chat/completions", CHAT)
    assert response.status == 503
    assert b"The disk is full; free some space" in response.body
    assert world.upstream.exchanges == []


def test_where_that_was_chosen_they_go_on_each_with_a_critical_event(options_of: Callable[[str], GatewayOptions]) -> None:
    world = MemoryGateway(options_of(YAML), allow_unchecked=True)
    world.ledger.failing = StorageError("The disk is full; free some space.")
    for _ in range(3):
        response = world.call("POST", "/v1/chat/completions", CHAT)
        world.upstream.latest.answer(ANSWER)
        assert response.status == 200
    errors = [(error.error_type, error.severity, error.message) for error in world.recorder.errors]
    assert errors == [("limits_unavailable", "critical", "not checked against any limit: The disk is full; free some space.")] * 3


def test_once_they_can_be_checked_again_they_are(options_of: Callable[[str], GatewayOptions]) -> None:
    world = MemoryGateway(options_of(YAML), allow_unchecked=True)
    world.ledger.failing = StorageError("The disk is full; free some space.")
    world.call("POST", "/v1/chat/completions", CHAT)
    world.ledger.failing = None
    assert [world.call("POST", "/v1/chat/completions", CHAT).status for _ in range(2)] == [0, 402]


def test_more_users_than_can_be_counted_lift_no_limit(options_of: Callable[[str], GatewayOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.execution.limiter.MOST_ACCOUNTS", 5)
    yaml = "agents: {a: {routes: {'*': [simulated/*]}}}\nlimits: [{calls: 2, per: hour}, {calls: 1, per: hour, scope: user}]"
    world = MemoryGateway(options_of(yaml), allow_unchecked=True)
    statuses = [world.call("POST", "/v1/chat/completions", CHAT | {"user": f"user {at}"}).status for at in range(10)]
    assert len(world.upstream.exchanges) == 2
    assert set(statuses[2:]) <= {402, 503}
