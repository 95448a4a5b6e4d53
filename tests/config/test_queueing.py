"""Which agents' calls wait while nothing can serve them, how long, and how urgent they may be."""

from pathlib import Path

import pytest

from holdfast.clock import SECOND
from holdfast.config import Config, load
from holdfast.errors import ConfigError
from holdfast.policy.waiting_line import QueueOptions


def loaded(folder: Path, agent: str) -> Config:
    path = folder / "holdfast.yaml"
    path.write_text(f"agents: {{a: {{{agent}}}}}\n", "utf-8")
    return load(path, {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", QueueOptions()),
        ("on_unavailable: refuse", QueueOptions()),
        ("on_unavailable: queue", QueueOptions(waits=True)),
        ("on_unavailable: queue, priority: high", QueueOptions(waits=True, priority="high")),
        ("on_unavailable: queue, timeouts: {queue: 60s}", QueueOptions(waits=True, longest_ns=60 * SECOND)),
    ],
)
def test_calls_are_refused_unless_the_agent_wants_them_to_wait(tmp_path: Path, written: str, read: QueueOptions) -> None:
    config = loaded(tmp_path, written)
    assert config.gateway.agents[0].queue == read
    assert config.warnings == ()


@pytest.mark.parametrize(("written", "key"), [("timeouts: {queue: 60s}", "timeouts.queue"), ("priority: high", "priority")])
def test_what_only_a_queue_heeds_is_pointed_out_without_one(tmp_path: Path, written: str, key: str) -> None:
    (warning,) = loaded(tmp_path, written).warnings
    assert f"agents.a.{key}: has no effect without on_unavailable: queue" in warning


def test_a_priority_that_is_none_is_an_error_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'agents\.a\.priority: expected high, normal or low, not "hihg"; did you mean "high"\?'):
        loaded(tmp_path, "priority: hihg")
