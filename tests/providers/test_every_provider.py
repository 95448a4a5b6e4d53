"""The contract that every kind of provider keeps, whoever wrote it."""

import re

import pytest

from holdfast import plugins
from holdfast.clock import SECOND
from holdfast.pricing import Rates
from holdfast.providers import ProviderKind

KINDS: dict[str, ProviderKind] = {name: plugins.load("providers", name) for name in plugins.names("providers")}
NOW = 1_795_000_000 * SECOND

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_the_four_kinds_of_this_version_are_there() -> None:
    assert set(KINDS) >= {"openai", "anthropic", "compatible", "simulated"}


@every_kind
def test_a_kind_speaks_at_least_one_family(kind: ProviderKind) -> None:
    assert kind.families
    assert set(kind.families) <= {"openai", "anthropic"}


@every_kind
def test_a_key_is_presented_in_one_header_that_http_can_carry(kind: ProviderKind) -> None:
    for family in kind.families:
        ((name, value),) = kind.credentials("key-123", family)
        assert name == name.lower()
        assert value.endswith(b"key-123")


@every_kind
def test_without_a_key_no_header_is_sent(kind: ProviderKind) -> None:
    assert all(kind.credentials("", family) == () for family in kind.families)


@every_kind
def test_variables_are_names_that_a_shell_can_set(kind: ProviderKind) -> None:
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) for variable in kind.key_variables + kind.base_url_variables)


@every_kind
def test_a_default_base_url_is_encrypted_and_needs_a_key(kind: ProviderKind) -> None:
    assert kind.base_url is None or (kind.base_url.startswith("https://") and kind.key_variables)


@every_kind
def test_no_kind_has_a_price_for_a_model_that_it_cannot_know(kind: ProviderKind) -> None:
    rates = kind.prices.rates("model-of-next-year", NOW)
    assert rates is None or kind is KINDS["simulated"]


@every_kind
@pytest.mark.parametrize("value", [b"", b"-1", b"12", b"6m0s", b"2026-07-14T12:00:00Z", b"\xff", b"9" * 400])
def test_headers_about_rates_are_read_or_say_nothing_whatever_is_in_them(kind: ProviderKind, value: bytes) -> None:
    names = [
        prefix + field + unit
        for prefix in (b"x-ratelimit-", b"anthropic-ratelimit-")
        for field in (b"limit", b"remaining", b"reset", b"")
        for unit in (b"-requests", b"-tokens", b"requests-limit", b"tokens-reset")
    ]
    assert all(quota.limit > 0 and quota.resets_ns >= 0 for quota in kind.quotas([(name, value) for name in names], NOW))
    assert kind.quotas((), NOW) == ()


def test_a_kind_that_might_count_by_the_clock_is_not_trusted_to_refill_steadily() -> None:
    headers = [(b"x-ratelimit-limit-requests", b"9"), (b"x-ratelimit-remaining-requests", b"3"), (b"x-ratelimit-reset-requests", b"6s")]
    assert [KINDS[name].quotas(headers, NOW)[0].refills for name in ("openai", "simulated", "compatible")] == [True, True, False]


@pytest.mark.parametrize(("name", "model"), [("openai", "gpt-4o-2024-08-06"), ("anthropic", "claude-sonnet-4-5-20250929")])
def test_the_models_of_the_large_providers_have_prices_without_configuration(name: str, model: str) -> None:
    assert KINDS[name].prices.rates(model, NOW) is not None


def test_the_simulated_provider_costs_one_dollar_in_and_four_out_per_million() -> None:
    assert KINDS["simulated"].prices.rates("sim-ok", NOW) == Rates(input=1_000_000_000, output=4_000_000_000)


def test_anthropic_takes_keys_and_oauth_tokens_in_different_headers() -> None:
    anthropic = KINDS["anthropic"]
    assert anthropic.credentials("sk-ant-api03-x", "anthropic") == ((b"x-api-key", b"sk-ant-api03-x"),)
    assert anthropic.credentials("sk-ant-oat01-x", "anthropic") == ((b"authorization", b"Bearer sk-ant-oat01-x"),)


def test_the_simulated_provider_takes_a_key_as_each_family_presents_it() -> None:
    simulated = KINDS["simulated"]
    assert simulated.credentials("k", "openai") == ((b"authorization", b"Bearer k"),)
    assert simulated.credentials("k", "anthropic") == ((b"x-api-key", b"k"),)


@every_kind
def test_a_kind_knows_its_prices_behind_any_host(kind: ProviderKind) -> None:
    for host in ("127.0.0.1", "api.example.com", "eu.api.openai.com"):
        assert kind.prices_at(host).provider == kind.prices.provider
