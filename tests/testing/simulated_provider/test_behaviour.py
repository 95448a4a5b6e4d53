from pathlib import Path

import pytest

from holdfast.clock import MILLISECOND
from holdfast.testing.simulated_provider.behaviour import Behaviour, behaviour
from holdfast.testing.simulated_provider.models import NAMES


@pytest.mark.parametrize("model", ["gpt-5.1", "claude-sonnet-4-5", "sim-ok", "sim-unheard-of", "sim-slow-", "not-sim-hang", ""])
def test_a_name_that_selects_nothing_behaves_as_sim_ok(model: str) -> None:
    assert behaviour(model) == Behaviour()


@pytest.mark.parametrize("model", ["sim-slow-250", "openai/sim-slow-250", "local:sim-slow-250", "a/b/sim-slow-250"])
def test_a_prefix_does_not_matter(model: str) -> None:
    assert behaviour(model) == Behaviour(first_ns=250 * MILLISECOND)


@pytest.mark.parametrize("model", [name for name in NAMES if name != "sim-ok"])
def test_every_listed_model_behaves_in_its_own_way(model: str) -> None:
    assert behaviour(model) != Behaviour()


@pytest.mark.parametrize("model", NAMES)
def test_every_listed_model_is_documented(model: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "simulated-provider.md").read_text()
    stem = model.removesuffix("-then-ok").rstrip("0123456789-")
    assert f"`{stem}" in page
