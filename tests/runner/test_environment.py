"""The agent gets the gateway and a one-run key; no real secret gets to the agent."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.runner.environment import BASE_URLS, KEYS, OPTIONAL_PROVIDERS, ROUTES_AROUND, child_environment

GATEWAY = "http://127.0.0.1:40123"
KEY = "hf-run-0123456789abcdef"

names = st.one_of(
    st.sampled_from([*KEYS, *BASE_URLS, *OPTIONAL_PROVIDERS, *ROUTES_AROUND, "PATH", "HOME", "NO_PROXY", "no_proxy", "HOLDFAST_CONFIG"]),
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12),
)
secrets = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


def environment_of(environment: dict[str, str], variables: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> dict[str, str]:
    return child_environment(
        environment, gateway_url=GATEWAY, key=KEY, real_key_variables=variables, secret_values=values, run_id="0190-run"
    )


@given(data=st.data(), secret=secrets.filter(lambda text: len(text) >= 8))
def test_no_secret_is_anywhere_in_the_result(data: st.DataObject, secret: str) -> None:
    carrying = st.sampled_from([secret, f"Bearer {secret}", f"postgres://user:{secret}@db/x", f"{secret},localhost", "harmless"])
    environment = data.draw(st.dictionaries(names | st.just(secret), carrying, max_size=12))
    result = environment_of(environment, values=(secret,))
    own = environment_of(dict.fromkeys(OPTIONAL_PROVIDERS, ""))
    assume(not any(secret in text for item in own.items() for text in item))
    assert not any(secret in text for item in result.items() for text in item)


@given(environment=st.dictionaries(names, secrets), secret=secrets)
def test_no_value_is_a_secret_however_short(environment: dict[str, str], secret: str) -> None:
    environment["SOMETHING"] = secret
    assume(secret not in environment_of({}).values())
    result = environment_of(environment, values=(secret,))
    assert secret not in result.values() or result["NO_PROXY"] == secret


@given(environment=st.dictionaries(names, st.just("real-provider-key"), max_size=12), variables=st.sets(names, max_size=5))
def test_no_variable_that_holds_a_real_key_survives_with_its_value(environment: dict[str, str], variables: set[str]) -> None:
    result = environment_of(environment, variables=tuple(variables))
    for name in variables | {*KEYS, *OPTIONAL_PROVIDERS, *ROUTES_AROUND}:
        assert result.get(name) != "real-provider-key"


@given(environment=st.dictionaries(names, st.text("abc.", min_size=1)))
def test_everything_else_is_untouched(environment: dict[str, str]) -> None:
    result = environment_of(environment)
    touched = {*KEYS, *BASE_URLS, *OPTIONAL_PROVIDERS, *ROUTES_AROUND, "NO_PROXY", "no_proxy"}
    touched |= {base for bases in OPTIONAL_PROVIDERS.values() for base in bases}
    for name in environment.keys() - touched:
        assert name.startswith("HOLDFAST_") or result[name] == environment[name]


def test_a_secret_that_is_short_does_not_empty_the_environment() -> None:
    result = environment_of({"PATH": "/usr/bin/x", "LOCAL_KEY": "x"}, values=("x", ""))
    assert result["PATH"] == "/usr/bin/x"
    assert "LOCAL_KEY" not in result


def test_the_addresses_and_keys_that_the_sdks_read_point_to_the_gateway() -> None:
    result = environment_of({"OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": "https://elsewhere", "HOLDFAST_CONFIG": "/etc/holdfast.yaml"})
    assert result == {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{GATEWAY}/v1",
        "OPENAI_API_BASE": f"{GATEWAY}/v1",
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": GATEWAY,
        "ANTHROPIC_API_BASE": GATEWAY,
        "ANTHROPIC_API_URL": GATEWAY,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "HOLDFAST_TOOLS_URL": f"{GATEWAY}/tools",
        "HOLDFAST_RUN": "0190-run",
    }


def test_another_provider_of_the_same_format_is_rerouted_only_where_it_was_set_up() -> None:
    result = environment_of({"OPENROUTER_API_KEY": "sk-or-real"})
    assert result["OPENROUTER_API_KEY"] == KEY
    assert result["OPENROUTER_API_BASE"] == f"{GATEWAY}/v1"
    assert not {"GROQ_API_KEY", "GROQ_API_BASE"} & result.keys()


@pytest.mark.parametrize(
    ("given_hosts", "expected"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "corp.example, localhost"}, "corp.example,localhost,127.0.0.1"),
        ({"no_proxy": "corp.example"}, "corp.example,127.0.0.1,localhost"),
        ({"NO_PROXY": "*"}, "*"),
    ],
)
def test_proxies_are_passed_by(given_hosts: dict[str, str], expected: str) -> None:
    result = environment_of(given_hosts | {"HTTPS_PROXY": "http://proxy.corp.example:3128"})
    assert result["NO_PROXY"] == result["no_proxy"] == expected
    assert result["HTTPS_PROXY"] == "http://proxy.corp.example:3128"


def test_a_gateway_on_another_host_is_not_reached_through_a_proxy_either() -> None:
    result = child_environment({}, gateway_url="http://guard.internal:8787/", key=KEY, real_key_variables=(), secret_values=(), run_id="r")
    assert result["OPENAI_BASE_URL"] == "http://guard.internal:8787/v1"
    assert result["NO_PROXY"] == "guard.internal,127.0.0.1,localhost"


def test_the_official_sdks_take_address_and_key_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import anthropic
    import openai

    for name, value in environment_of({}).items():
        monkeypatch.setenv(name, value)
    with openai.OpenAI() as client:
        assert (str(client.base_url), client.api_key) == (f"{GATEWAY}/v1/", KEY)
    with anthropic.Anthropic() as other:
        assert (str(other.base_url).rstrip("/"), other.api_key) == (GATEWAY, KEY)
