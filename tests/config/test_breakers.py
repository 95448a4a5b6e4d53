"""Circuit breakers as they are written: defaults for all, another word for one provider or tool, off."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.clock import SECOND
from holdfast.config import load
from holdfast.errors import ConfigError
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.circuit_breaker import BreakerOptions

TOOLS = "tools: {crm: {base_url: 'https://crm.example', %s}, erp: {base_url: 'https://erp.example'}}\n"


@pytest.fixture
def loaded(tmp_path: Path) -> Any:
    def load_text(text: str) -> GatewayOptions:
        file = tmp_path / "holdfast.yaml"
        file.write_text(text)
        return load(file, {"OPENAI_API_KEY": "sk"}).gateway

    return load_text


def test_they_are_on_where_nothing_is_written_and_take_no_answer_for_slow(loaded: Any) -> None:
    options = loaded(TOOLS % "insecure: false")
    assert {each.breaker for each in (*options.providers, *options.tools)} == {BreakerOptions()}
    assert BreakerOptions().slow_call_ns is None


def test_what_is_said_of_one_stands_on_what_is_said_of_all(loaded: Any) -> None:
    options = loaded(
        "breakers: {failure_rate: 60%, slow_call: 30s, slow_rate: 90%, window: 1m, minimum_calls: 20, cooldown: 10s, probes: 3}\n"
        "providers: {openai: {breaker: {minimum_calls: 5, slow_call: off}}, other: {kind: openai}}\n" + TOOLS % "breaker: off"
    )
    for_all = BreakerOptions(
        failure_rate=60,
        slow_call_ns=30 * SECOND,
        slow_rate=90,
        window_ns=60 * SECOND,
        minimum_calls=20,
        cooldown_ns=10 * SECOND,
        probes=3,
    )
    assert [each.breaker for each in options.providers] == [
        BreakerOptions(failure_rate=60, slow_rate=90, window_ns=60 * SECOND, minimum_calls=5, cooldown_ns=10 * SECOND, probes=3),
        for_all,
    ]
    assert [each.breaker for each in options.tools] == [None, for_all]


def test_off_for_all_and_on_for_one(loaded: Any) -> None:
    options = loaded("breakers: off\nproviders: {openai: {breaker: {probes: 1}}, other: {kind: openai}}\n")
    assert [each.breaker for each in options.providers] == [BreakerOptions(probes=1), None]


def test_a_long_cooldown_may_be_longer_than_the_usual_longest(loaded: Any) -> None:
    (provider,) = loaded("providers: {openai: {breaker: {cooldown: 10m}}}\n").providers
    assert (provider.breaker.cooldown_ns, provider.breaker.longest_cooldown_ns) == (600 * SECOND, 600 * SECOND)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("on", 'breakers: expected off, or a section with keys, not "on"'),
        ("{failure_rate: 0%}", "breakers.failure_rate: expected a share of the calls from 1% to 100%"),
        ("{failure_rate: 50}", "breakers.failure_rate: expected a share of the calls"),
        ("{slow_rate: 80%}", "slow_rate needs slow_call"),
        ("{minimum_calls: 0}", "expected a number of calls from 1 to 1000000"),
        ("{probes: 9}", "expected 1 to 8 probes"),
        ("{window: 2d}", "expected a window of a day at the most"),
        ("{cooldown: 10s, longest_cooldown: 5s}", "longest_cooldown is shorter than cooldown"),
        ("{coldown: 10s}", 'breakers.coldown: unknown key; did you mean "cooldown"?'),
    ],
)
def test_a_mistake_is_named_with_its_place(loaded: Any, written: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"holdfast\.yaml:1: ") as error:
        loaded(f"breakers: {written}\n")
    assert said in str(error.value)
