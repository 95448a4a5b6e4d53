"""The last lines of a run: what happened, first; no cost that is not known."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import StorageError
from holdfast.events.usage import Usage
from holdfast.runner.summary import Summary, render, to_json, write

SUMMARY = Summary(
    run="0190a",
    agent="support",
    release="v2.3.1",
    exit_code=122,
    reason="limit",
    duration_ns=12_345_000_000,
    calls=14,
    attempts=17,
    usage=Usage(input=12_345, output=2_345, cached_input=8_000),
    cost=123_400_000,
    unpriced=0,
    decisions=13,
    refusals=1,
    errors=2,
    limits=("run: 0.50 USD in total",),
)


def test_the_verdict_comes_first_and_everything_counted_follows() -> None:
    assert (
        render(SUMMARY, colour=False)
        == """\
holdfast: stopped at a hard limit (exit 122) after 12.3 s
  agent    support v2.3.1
  limit    run: 0.50 USD in total
  cost     $0.1234
  calls    14 (17 attempts), 1 refused
  tokens   12,345 in (8,000 cached), 2,345 out
  record   13 decisions, 2 errors: holdfast decisions list
  run      0190a
"""
    )


@given(cost=st.integers(0, 10**12), unpriced=st.integers(1, 100))
def test_a_cost_that_is_not_known_is_never_shown_as_nothing(cost: int, unpriced: int) -> None:
    summary = msgspec.structs.replace(SUMMARY, cost=cost, unpriced=unpriced)
    text = render(summary, colour=False)
    assert not re.search(r"\$0\.0+(?!\d)", text)
    assert "of unknown cost" in text
    document = json.loads(to_json(summary))
    assert (document["cost_usd"] is None) == (cost == 0)
    assert document["calls_of_unknown_cost"] == unpriced


def test_a_run_that_cost_nothing_says_so() -> None:
    free = msgspec.structs.replace(SUMMARY, cost=0)
    assert "cost     $0.00\n" in render(free, colour=False)
    assert json.loads(to_json(free))["cost_usd"] == 0


@pytest.mark.parametrize(("reason", "code", "colour"), [("exited", 0, "32"), ("exited", 1, "31"), ("timeout", 124, "31")])
def test_colour_is_green_only_for_success_and_off_without_it(reason: str, code: int, colour: str) -> None:
    summary = msgspec.structs.replace(SUMMARY, reason=reason, exit_code=code)
    assert f"\x1b[{colour}m" in render(summary, colour=True)
    assert "\x1b" not in render(summary, colour=False)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.9, "59.9 s"), (60, "1 min 00 s"), (754, "12 min 34 s"), (3_600 * 63 + 120, "63 h 02 min")]
)
def test_durations_read_easily(seconds: float, text: str) -> None:
    assert f"after {text}\n" in render(msgspec.structs.replace(SUMMARY, duration_ns=int(seconds * 1e9)), colour=False)


def test_what_the_agent_heard_last_is_said_on_one_harmless_line() -> None:
    text = render(msgspec.structs.replace(SUMMARY, last_error="openai/x: answered\n401 \x1b[2J"), colour=False)
    assert "\n  error    openai/x: answered 401 ?[2J\n" in text


def test_the_record_of_calls_without_a_decision_is_looked_up_by_interaction() -> None:
    summary = msgspec.structs.replace(SUMMARY, decisions=0, look_up=" --data-dir 'my data'")
    assert "0 decisions, 2 errors: holdfast interactions list --data-dir 'my data'\n" in render(summary, colour=False)


def test_processes_that_could_not_be_ended_are_named_at_once() -> None:
    lines = render(msgspec.structs.replace(SUMMARY, survivors=(17, 42)), colour=False).splitlines()
    assert lines[1] == "  STILL RUNNING process 17, 42 could not be ended"


def test_the_document_has_seconds_and_dollars() -> None:
    assert json.loads(to_json(SUMMARY)) == {
        "run": "0190a",
        "agent": "support",
        "release": "v2.3.1",
        "user": "",
        "exit_code": 122,
        "reason": "limit",
        "duration_s": 12.345,
        "calls": 14,
        "attempts": 17,
        "tokens": {"input": 12345, "output": 2345, "cached_input": 8000},
        "cost_usd": 0.1234,
        "calls_of_unknown_cost": 0,
        "decisions": 13,
        "refusals": 1,
        "errors": 2,
        "last_error": "",
        "limits": ["run: 0.50 USD in total"],
        "kill": "",
        "survivors": [],
    }


def test_the_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    path.write_text("old")
    write(SUMMARY, path)
    assert path.read_bytes() == to_json(SUMMARY)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        write(SUMMARY, tmp_path / "summary.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]
