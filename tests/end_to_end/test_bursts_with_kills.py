"""A few rounds of `bench/limits.py`, whose two hundred are the whole proof: bursts, kill -9 in the middle, the provider is the judge."""

import importlib
import random
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
CONCURRENT = 100
KINDS = [(2, True, "worker"), (1, False, "everything"), (2, True, "everything")]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("limits")


def test_no_limit_is_exceeded_when_bursts_are_killed_in_the_middle(limits) -> None:
    programs = importlib.import_module("programs")
    answers: Counter[int] = Counter()
    with programs.sim() as provider:
        for number, kind in enumerate(KINDS):
            plan = limits.planned(7, number, CONCURRENT, kind)
            verdict = limits.run(plan, provider, random.Random(number))
            assert verdict.over == [], plan
            answers += verdict.answers
    assert answers.keys() == {0, 200, 402}  # calls were under way when the kill came, and limits were reached


def test_the_judge_names_the_account_that_the_provider_saw_exceeded(limits) -> None:
    declared = [limits.Declared("a1", "user", "calls", 3, "hour"), limits.Declared("", "all", "usd", 10_000_000, "day")]
    plan = limits.planned(7, 0)._replace(name="r", limits=tuple(declared))
    tally = {"calls": 2, "input_tokens": 500, "output_tokens": 500}
    models = {f"r.a1.u0.{model}:sim-ok": tally for model in ("m0", "m1")} | {"r.a0.u0.m0:sim-ok": tally, "x.a1.u0.m0:sim-ok": tally}
    verdict = limits.judge(plan, models, Counter({402: 1}))
    assert verdict.over == ["{calls: 3, per: hour, scope: user} of a1: u0 used 4"]
    assert verdict.usable == pytest.approx(4 / 3)
