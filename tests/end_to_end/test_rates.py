"""A rate holds over all workers together, and the official SDKs sit out what they are told to."""

from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai
import pytest

from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import SimulatedProvider, running_in_thread

SAY = [{"role": "user", "content": "Hello"}]
CALL = {"model": "sim-ok", "messages": SAY}


def test_two_workers_together_keep_one_rate(site) -> None:
    site.configure("rates: [{requests: 1, per: hour, burst: 7, on_excess: refuse}]\n")
    up = site.up("--workers", "2")
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: up.ask(CALL).status, range(60)))
    assert (statuses.count(200), statuses.count(429)) == (7, 53)
    assert site.provider.of_model("sim-ok")["calls"] == 7
    served_by = {event["call_id"] for event in site.journal("api_call")}
    assert len(served_by) == 7


def test_the_rate_outlives_the_workers(site) -> None:
    site.configure("rates: [{requests: 1, per: hour, burst: 2, on_excess: refuse}]\n")
    up = site.up()
    assert up.ask(CALL).status == 200
    assert up.end() == 0
    again = site.up()
    assert [again.ask(CALL).status for _ in range(2)] == [200, 429]


@pytest.fixture
def provider():
    simulated = SimulatedProvider()
    with running_in_thread(simulated.application) as address:
        yield address


def test_the_sdks_wait_in_the_queue_without_noticing(provider, tmp_path) -> None:
    options = options_for(provider, "rates: [{requests: 100, per: second, burst: 1}]\n", tmp_path)
    with gateway_in_thread(options, tmp_path / "data") as address:
        chat = openai.OpenAI(base_url=address.openai, api_key="any", max_retries=0)
        messages = anthropic.Anthropic(base_url=address.anthropic, api_key="any", max_retries=0)
        with ThreadPoolExecutor(6) as pool:
            said = [pool.submit(chat.chat.completions.create, model="sim-ok", messages=SAY) for _ in range(6)]
            also = [pool.submit(messages.messages.create, model="sim-ok", messages=SAY, max_tokens=50) for _ in range(6)]
            assert all(each.result().choices[0].message.content for each in said)
            assert all(each.result().content for each in also)
        chat.close()
        messages.close()


def test_the_sdks_raise_rate_limit_errors_and_retry_as_they_are_told(provider, tmp_path) -> None:
    """Refused once, both come back after the second that they are told; where the wait is an hour neither does."""
    yaml = (
        "agents:\n"
        "  quick: {key: file:quick, rates: [{requests: 1, per: second, scope: model, on_excess: refuse}]}\n"
        "  slow: {key: file:slow, rates: [{requests: 1, per: hour, scope: model, on_excess: refuse}]}\n"
    )
    for name in ("quick", "slow"):
        (tmp_path / name).write_text(f"key-{name}")
    options = options_for(provider, yaml, tmp_path)
    with gateway_in_thread(options, tmp_path / "data") as address:
        for name in ("quick", "slow"):
            chat = openai.OpenAI(base_url=address.openai, api_key=f"key-{name}", max_retries=3)
            messages = anthropic.Anthropic(base_url=address.anthropic, api_key=f"key-{name}", max_retries=3)
            for ask, error in (
                (lambda: chat.chat.completions.create(model=f"sim-ok-{name}", messages=SAY), openai.RateLimitError),  # noqa: B023
                (lambda: messages.messages.create(model=f"sim-ok-{name}-a", messages=SAY, max_tokens=9), anthropic.RateLimitError),  # noqa: B023
            ):
                ask()
                if name == "quick":
                    ask()
                else:
                    with pytest.raises(error) as caught:
                        ask()
                    assert caught.value.response.headers["retry-after"] == "3600"
                    assert caught.value.body is not None
            chat.close()
            messages.close()
