"""A defect of Holdfast's own leaves no agent waiting and no money reserved; a provider's words do not carry its key."""

from collections.abc import Callable

import pytest

from holdfast.gateway import target_attempt
from holdfast.gateway.recording import CallRecord
from holdfast.gateway.target_attempt import TargetAttempt
from holdfast.testing.memory_gateway import MemoryGateway

YAML = """
agents:
  default:
    limits: [{usd: 1, per: day}]
    retries: {max: 0}
"""
BODY = b'{"model":"gpt-4o-mini","max_tokens":100,"messages":[{"role":"user","content":"hi"}]}'
Build = Callable[[str], MemoryGateway]


def raise_defect(*_: object, **__: object) -> None:
    raise ZeroDivisionError("planted")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (TargetAttempt, "start"),
        (TargetAttempt, "_settle"),
        (target_attempt, "settlement"),
        (CallRecord, "attempt"),
        (CallRecord, "decision"),
    ],
)
def test_a_defect_becomes_a_500_and_counts_the_reservation(
    gateway: Build, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    plane = gateway(YAML)
    monkeypatch.setattr(owner, name, raise_defect)
    response = plane.call("POST", "/v1/chat/completions", BODY)
    if name != "start":
        plane.upstream.latest.answer(b'{"choices":[{"message":{"role":"assistant","content":"yes"}}]}')
    assert response.status == 500
    assert b"defect" in response.body
    assert sum(account.reserved for book in plane.limiter._books.values() for account in book.accounts.values()) == 0
    monkeypatch.undo()
    again = plane.call("POST", "/v1/chat/completions", BODY)
    assert not again.ended, "the next call goes its way"


def test_a_defect_after_the_client_left_keeps_nothing_reserved(gateway: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = gateway(YAML)
    monkeypatch.setattr(target_attempt, "settlement", raise_defect)
    plane.call("POST", "/v1/chat/completions", BODY).leave()
    assert plane.upstream.latest.cancelled
    assert sum(account.reserved for book in plane.limiter._books.values() for account in book.accounts.values()) == 0


def test_a_key_that_a_provider_repeats_reaches_neither_agent_nor_record(gateway: Build) -> None:
    plane = gateway(YAML)
    response = plane.call("POST", "/v1/chat/completions", BODY)
    plane.upstream.latest.answer(b'{"error":{"message":"Incorrect API key provided: sk-upstream."}}', 401)
    assert response.status == 401
    assert b"***" in response.body
    assert b"sk-upstream" not in response.body
    assert "sk-upstream" not in repr(plane.recorder.events)
