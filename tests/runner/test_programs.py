"""Known programs come through the gateway although they do not read the usual variables; all others are started as they are."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.runner.programs import adapt

GATEWAY = "http://127.0.0.1:40123"
ENVIRONMENT = {"OPENAI_API_KEY": "hf-run", "ANTHROPIC_API_KEY": "hf-run", "PATH": "/bin"}


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (["codex", "exec", "task"], 1),
        (["/usr/local/bin/codex", "exec"], 1),
        (["npx", "-y", "@openai/codex@0.169.0", "exec"], 3),
        (["node", "/app/node_modules/.bin/codex", "exec"], 2),
        (["codex"], 1),
    ],
)
def test_codex_gets_a_provider_of_its_own_before_its_own_words(command: list[str], place: int) -> None:
    adapted, environment = adapt(command, ENVIRONMENT, gateway_url=GATEWAY, key="hf-run")
    settings = adapted[place : place + 4]
    assert [*adapted[:place], *adapted[place + 4 :]] == command
    assert settings[:3] == ("-c", "model_provider=holdfast", "-c")
    assert tomllib.loads(settings[3])["model_providers"]["holdfast"] == {
        "name": "Holdfast",
        "base_url": f"{GATEWAY}/v1",
        "env_key": "OPENAI_API_KEY",
        "wire_api": "responses",
    }
    assert environment == ENVIRONMENT


@pytest.mark.parametrize("command", [["claude", "-p", "task"], ["npx", "@anthropic-ai/claude-code", "-p"]])
def test_claude_code_gets_a_token_which_it_takes_without_asking(command: list[str]) -> None:
    adapted, environment = adapt(command, ENVIRONMENT, gateway_url=GATEWAY, key="hf-run")
    assert adapted == tuple(command)
    assert environment == {"OPENAI_API_KEY": "hf-run", "ANTHROPIC_AUTH_TOKEN": "hf-run", "PATH": "/bin"}


@given(command=st.lists(st.text(), min_size=1))
def test_any_other_command_is_passed_as_it_is(command: list[str]) -> None:
    assert adapt(["agent", *command], ENVIRONMENT, gateway_url=GATEWAY, key="k") == (("agent", *command), ENVIRONMENT)
    launched = ["node", *(word for word in command if "codex" not in word and "claude" not in word)]
    assert adapt(launched, ENVIRONMENT, gateway_url=GATEWAY, key="k") == (tuple(launched), ENVIRONMENT)
