"""Queue instead of drop, as its users meet it: who waits is seen from outside, and hears of the end of `holdfast up`."""

import signal
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

AGENTS = """
agents:
  support: {on_unavailable: queue, retries: {max: 0}}
"""
ASKED = {"model": "sim-error-503", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_call_that_waits_is_on_record_and_in_the_status_and_is_refused_when_holdfast_ends(site, eventually) -> None:
    site.configure(AGENTS)
    up = site.up("--workers", "1")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(up.ask, ASKED)
        eventually(lambda: [event["recovery_action"] for event in site.journal("error")][:1] == ["queued"], "the record of the wait")

        def waiting() -> bool:
            (status,) = site.command("status", "--json").events()
            return status["gateways"][0]["waiting"] == {"support": 1}

        eventually(waiting, "the call in the status")
        assert "calls that wait for a target: 1 of support" in site.command("status").out
        assert up.end(signal.SIGTERM) == 0
        reply = answer.result()
    assert (reply.status, reply.headers["x-holdfast-refusal"], reply.headers["retry-after"]) == (503, "ending", "1")
    assert {event["recovery_action"] for event in site.journal("error")} == {"queued", "refused"}


def test_an_sdk_does_not_repeat_a_call_that_has_waited_in_vain(site) -> None:
    site.configure(AGENTS.replace("retries", "timeouts: {total: 10s, queue: 1s}, retries"))
    up = site.up("--workers", "1")
    client = openai.OpenAI(base_url=f"{up.gateway}/v1", api_key="any", max_retries=2)
    with client, pytest.raises(openai.InternalServerError, match="the call has waited for"):
        client.chat.completions.create(**ASKED)
    assert len([event for event in site.journal("error") if event["recovery_action"] == "refused"]) == 1
