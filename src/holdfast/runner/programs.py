"""Programs that need more than the environment to come through the gateway, and what they need."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath

Start = tuple[tuple[str, ...], dict[str, str]]
"""A command and its environment."""

_LAUNCHERS = frozenset({"npx", "bunx", "node", "bun"})


def adapt(command: Sequence[str], environment: Mapping[str, str], *, gateway_url: str, key: str) -> Start:
    """The command and environment with which a known program talks to the gateway; unknown ones are passed as they are.

    environment: as `child_environment` made it. A program is known by its own name or as what a launcher such as npx starts.
    """
    place = _place_of_program(command)
    adaptation = _ADAPTATIONS.get(_name(command[place]))
    start = tuple(command), dict(environment)
    return start if adaptation is None else adaptation(start, place, gateway_url.rstrip("/"), key)


def _place_of_program(command: Sequence[str]) -> int:
    if _name(command[0]) not in _LAUNCHERS:
        return 0
    return next((place for place, word in enumerate(command) if place and not word.startswith("-")), 0)


def _name(word: str) -> str:
    """`/usr/lib/codex.js`, `codex` and `@openai/codex@0.169.0` are all codex."""
    return PurePath(word).name.split("@")[0].removesuffix(".js")


def _codex(start: Start, place: int, gateway: str, key: str) -> Start:
    """Codex (0.118 to 0.169 at least) takes no address from the environment, and its own provider a key only from CODEX_API_KEY.

    A provider of the run's own also keeps it from a stored ChatGPT login and from trying WebSockets first.
    """
    command, environment = start
    provider = f'{{name="Holdfast",base_url="{gateway}/v1",env_key="OPENAI_API_KEY",wire_api="responses"}}'
    settings = ("-c", "model_provider=holdfast", "-c", f"model_providers.holdfast={provider}")
    return (*command[: place + 1], *settings, *command[place + 1 :]), environment


def _claude(start: Start, place: int, gateway: str, key: str) -> Start:
    """Claude Code asks at the keyboard before it uses an unknown ANTHROPIC_API_KEY, and every run's is; a token it takes unasked."""
    command, environment = start
    environment.pop("ANTHROPIC_API_KEY", None)
    return command, environment | {"ANTHROPIC_AUTH_TOKEN": key}


_ADAPTATIONS: dict[str, Callable[[Start, int, str, str], Start]] = {"codex": _codex, "claude": _claude, "claude-code": _claude}
