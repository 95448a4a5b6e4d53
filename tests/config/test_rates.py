"""Rates as they are written, and what is assumed where nothing is written."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.rate import PERIODS, Rate


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def load_text(text: str) -> GatewayOptions:
        file = tmp_path / "holdfast.yaml"
        file.write_text(text)
        return load(file, {"OPENAI_API_KEY": "sk"}).gateway

    return load_text


def test_everything_an_agent_and_a_provider_have_rates_of_their_own(loaded: Any) -> None:
    options = loaded(
        "rates: [{requests: 600, per: minute}]\n"
        "agents: {support: {rates: [{requests: 60, per: minute, burst: 10, scope: user, on_excess: wait, max_wait: 5s}]}}\n"
        "providers: {openai: {rates: [{tokens: 90000, per: second, on_excess: refuse}, {requests: 3, per: hour, scope: model}]}}\n"
    )
    assert options.rates == (Rate(scope="all", unit="requests", amount=600, per_ns=PERIODS["minute"], burst=60),)
    assert options.agents[0].rates == (
        Rate(scope="user", unit="requests", amount=60, per_ns=PERIODS["minute"], burst=10, owner="support", max_wait_ns=5 * SECOND),
    )
    assert options.providers[0].rates == (
        Rate(
            scope="provider",
            unit="tokens",
            amount=90_000,
            per_ns=SECOND,
            burst=9_000,
            owner="provider openai",
            on_excess="refuse",
        ),
        Rate(scope="model", unit="requests", amount=3, per_ns=PERIODS["hour"], burst=1, owner="provider openai"),
    )


def test_without_any_there_are_none(loaded: Any) -> None:
    options = loaded("")
    assert options.rates == options.agents[0].rates == options.providers[0].rates == ()
