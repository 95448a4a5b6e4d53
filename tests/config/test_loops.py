"""The loop guard's limits as they are written, and what is assumed where nothing is written."""

from pathlib import Path

import pytest

from holdfast.config import load
from holdfast.errors import ConfigError
from holdfast.policy.loop_guard import LoopOptions


def guard_of(folder: Path, text: str) -> LoopOptions | None:
    file = folder / "holdfast.yaml"
    file.write_text(f"agents:\n  support:\n{text}\n", "utf-8")
    return load(file, {"OPENAI_API_KEY": "sk"}).gateway.agents[0].loop_guard


def test_every_limit_can_be_set(tmp_path: Path) -> None:
    written = """    loop_guard: {same_call: 5, cycle: 3, no_new_result: 12, same_result: 40, max_turns: 60, growth: 300%, warn_at: 80%,
      polling: [wait_for_build, "*x"]}"""
    assert guard_of(tmp_path, written) == LoopOptions(
        same_call=5,
        cycle=3,
        no_new_result=12,
        same_result=40,
        max_turns=60,
        growth=300,
        warn_at=80,
        polling=frozenset({"wait_for_build", "*x"}),
    )


@pytest.mark.parametrize("nothing", ["", "    loop_guard:", "    loop_guard: {}"])
def test_the_defaults_hold_where_nothing_is_written(tmp_path: Path, nothing: str) -> None:
    assert guard_of(tmp_path, nothing) == LoopOptions()


def test_it_can_be_off_whole_or_in_parts(tmp_path: Path) -> None:
    assert guard_of(tmp_path, "    loop_guard: off") is None
    parts = guard_of(tmp_path, "    loop_guard: {same_call: off, cycle: 0, growth: off}")
    assert parts == LoopOptions(same_call=0, cycle=0, growth=0)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("no", 'loop_guard: expected off, or a section such as {same_call: 8}, not "no"'),
        ("{same_calls: 8}", 'loop_guard.same_calls: unknown key; did you mean "same_call"?'),
        ("{same_call: 1}", 'loop_guard.same_call: expected off, or a whole number from 2 to 1000000, not "1"'),
        ("{max_turns: many}", 'loop_guard.max_turns: expected a whole number, zero or more, not "many"'),
        ("{growth: 200}", 'loop_guard.growth: expected a percentage from 10% to 10000%, not "200"'),
        ("{warn_at: 0%}", 'loop_guard.warn_at: expected a percentage from 1% to 100%, not "0%"'),
        ("{warn_at: ٣%}", 'loop_guard.warn_at: expected a percentage from 1% to 100%, not "٣%"'),
        ("{polling: wait}", "loop_guard.polling: expected a list, such as [this, that]"),
        ("{polling: ['']}", "loop_guard.polling[1]: expected the name of a tool, of at most 64 characters"),
    ],
)
def test_mistakes_are_named_with_the_way_out(tmp_path: Path, written: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        guard_of(tmp_path, f"    loop_guard: {written}")
    assert str(caught.value) == f"{tmp_path}/holdfast.yaml:3: agents.support.{message}"
