"""`holdfast decisions` as its users and their scripts meet it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from holdfast.cli import _output
from holdfast.cli._journal import instant
from holdfast.cli._output import Column, duration, printable, usd, usd_number
from holdfast.clock import SECOND
from holdfast.errors import UsageError
from holdfast.events.ids import uuid7
from holdfast.store.journal import Journal
from holdfast.testing import FakeClock

Holdfast = Callable[..., Any]
COMMAND = (sys.executable, "-c", "from holdfast.cli import main; main()", "decisions")
ACTS_ON_TERMINALS = {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160), 0x202E)}


def records(done: Any) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_list_is_newest_first_and_says_a_dash_for_a_cost_that_is_not_known(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("decisions", "list")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["ID", "TIME", "AGENT", "INTERACTION", "ACTION", "MODEL", "TOKENS", "COST", "LATENCY", "FLAGS"]
    assert [row.split()[0] for row in rows] == [d.decision_id[:13] for d in (story.cut, story.reply, story.refund)]
    assert "  01-01 00:00:00  support  " in rows[2]
    assert "  100/20  $0.0012345   400 ms  retried" in rows[2]
    assert "anthropic/claude-sonnet-4-5 for gpt-5.1       –           –" in rows[1]
    assert "$0 " not in done.stdout


@pytest.mark.parametrize(
    ("options", "actions"),
    [
        ((), ["none", "reply", "refund_order"]),
        (("--agent", "support"), ["reply", "refund_order"]),
        (("--user", "bob"), ["none"]),
        (("--run", "run-1"), ["reply", "refund_order"]),
        (("--release", "v9"), ["none"]),
        (("--action", "refund_order"), ["refund_order"]),
        (("--failed",), ["none"]),
        (("--limit", "1"), ["none"]),
        (("--since", "2026-01-01T00:00:15Z"), ["none", "reply"]),
    ],
)
def test_filters_choose_what_a_script_gets(story: Any, holdfast: Holdfast, options: tuple[str, ...], actions: list[str]) -> None:
    assert [record["chosen_action"] for record in records(holdfast("decisions", "list", "--json", *options))] == actions


def test_json_carries_the_names_of_the_checklist(story: Any, holdfast: Holdfast) -> None:
    _, _, record = records(holdfast("decisions", "list", "--json"))
    assert record["decision_id"] == story.refund.decision_id
    assert record["timestamp"] == "2026-01-01T00:00:00.000Z"
    assert record["cost_usd"] == 0.0012345
    assert record["tokens"] == {
        "input": 100, "output": 20, "cached_input": 50, "cache_write": 0, "reasoning": 0, "web_searches": 0, "cache_write_short": 0,
    }  # fmt: skip
    assert record["latency_ms"] == 400
    assert record["reasoning_chain"] == story.refund.reasoning_chain
    assert (record["confidence_score"], record["confidence_source"], record["user_id"]) == (None, "none", "ann")


def test_show_tells_the_whole_story(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("decisions", "show", story.refund.decision_id[:18])
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "Be kind.",
        "refund order 7 – 日本",
        'refund_order({"order":7})',
        "it is damaged",
        "1. openai/gpt-5.1 POST /v1/chat/completions: 429, 33 ms, $0.00",
        "2. openai/gpt-5.1 POST /v1/chat/completions: 200, 33 ms, $0.0012345",
        "warning rate_limit: openai answered 429 (retried)",
        "    slow down\n    please",
        "100 in (50 cached), 20 out (0 reasoning)",
    ):
        assert words in done.stdout


def test_show_as_json_gives_the_prompt_back_whole(story: Any, holdfast: Holdfast) -> None:
    [record] = records(holdfast("decisions", "show", "--json", story.reply.decision_id))
    assert [message["role"] for message in record["input_prompt"]["messages"]] == ["user", "tool"]
    assert record["input_missing"] == []
    [record] = records(holdfast("decisions", "show", "--json", story.refund.decision_id))
    assert record["input_prompt"]["system"] == "Be kind."
    assert record["input_prompt"]["params"] == {"temperature": 0}
    assert [call["response_code"] for call in record["api_calls"]] == [429, 200]
    assert [error["full_traceback"] for error in record["errors"]] == ["slow down\nplease"]


@pytest.mark.parametrize("arguments", [("list",), ("list", "--json"), ("show", "REPLY"), ("show", "REFUND"), ("show", "--json", "REFUND")])
def test_what_a_model_said_never_acts_on_the_terminal(story: Any, holdfast: Holdfast, arguments: tuple[str, ...]) -> None:
    ids = {"REPLY": story.reply.decision_id, "REFUND": story.refund.decision_id}
    done = holdfast("decisions", *(ids.get(word, word) for word in arguments))
    assert not ACTS_ON_TERMINALS & set(done.stdout + done.stderr)


def test_without_a_journal_it_says_where_it_looked_and_what_to_do(tmp_path: Path, holdfast: Holdfast) -> None:
    for arguments in (("decisions", "list"), ("decisions", "list", "--json"), ("interactions", "list")):
        done = holdfast(*arguments)
        assert (done.returncode, done.stdout) == (0, "")
        assert str(tmp_path / "data" / "journal") in done.stderr
        assert "holdfast run -- COMMAND" in done.stderr
    assert not (tmp_path / "data").exists()


def test_filters_that_match_nothing_are_not_taken_for_an_empty_record(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("decisions", "list", "--since", "2h")
    assert (done.returncode, done.stdout) == (0, "")
    assert "match" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("show", "ffffffff-ffff"), 1, "no decision ffffffff-ffff in "),
        (("show", "019b7701"), 1, "no decision"),
        (("show", "short"), 2, "at least 8"),
        (("list", "--since", "yesterday"), 2, "neither an age"),
        (("list", "--limit", "0"), 2, "--limit"),
        (("list", "--colour"), 2, "--colour"),
    ],
)
def test_mistakes_are_one_sentence_and_an_exit_code(
    story: Any, holdfast: Holdfast, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = holdfast("decisions", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_beginning_that_several_share_names_them(story: Any, holdfast: Holdfast) -> None:
    done = holdfast("decisions", "show", story.refund.decision_id[:8])
    assert done.returncode == 1
    assert all(d.decision_id in done.stderr for d in (story.refund, story.reply))


def test_damage_is_counted_on_stderr_and_costs_nothing_else(story: Any, holdfast: Holdfast) -> None:
    size = story.path.stat().st_size
    with story.path.open("ab") as file:
        file.write(b'{"kind":"decision","decision_id":"tor')
    done = holdfast("decisions", "list", "--json")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 3)
    assert done.stderr.startswith(f"1 line of the journal could not be read and are left out, first in {story.path} at byte {size}: ")


def test_a_reader_that_leaves_early_is_no_error(story: Any) -> None:
    for options in ((), ("--json",)):
        command = (*COMMAND, "list", *options, "--data-dir", str(story.data_dir))
        read, write = os.pipe()
        os.close(read)
        try:
            done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        finally:
            os.close(write)
        assert done.stderr == ""


def on_terminal(columns: int, *arguments: str, **environment: str) -> str:
    """What the command writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm", **environment}
    try:
        with subprocess.Popen((*COMMAND, *arguments), stdout=theirs, stderr=theirs, env=env) as process:
            os.close(theirs)
            output = b""
            while select.select([ours], [], [], 60)[0]:
                try:
                    output += (data := os.read(ours, 65536))
                except OSError:  # Linux: the other end is closed
                    break
                if not data:
                    break
        assert process.returncode == 0
    finally:
        os.close(ours)
    return output.decode()


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_a_table_fits_its_terminal(story: Any, columns: int) -> None:
    lines = on_terminal(columns, "list", "--data-dir", str(story.data_dir), NO_COLOR="1").splitlines()
    assert len(lines) == 4
    assert all(len(line) <= columns for line in lines)
    assert all(words in lines[3] for words in (story.refund.decision_id[:13], "refund_", "$0.0012345", "retried"))


def test_a_terminal_too_narrow_for_a_table_gets_it_whole_all_the_same(story: Any) -> None:
    assert "$0.0012345" in on_terminal(40, "list", "--data-dir", str(story.data_dir), NO_COLOR="1")


def test_a_column_in_which_nothing_stands_makes_room_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_output, "_console", lambda: Console(width=20, color_system=None))
    _output.print_table([Column("ID", fixed=True), Column("AGENT", spare=1), Column("FLAGS")], [("0123456789", "support", "")])
    assert capsys.readouterr().out.split() == ["ID", "AGENT", "0123456789", "support"]


def test_terminals_get_styles_unless_the_user_wants_none(story: Any) -> None:
    show = ("show", story.refund.decision_id, "--data-dir", str(story.data_dir))
    assert "\x1b[" in on_terminal(100, *show)
    assert "\x1b" not in on_terminal(100, *show, NO_COLOR="1")


def test_tail_prints_what_is_there_and_what_comes_until_ctrl_c(story: Any) -> None:
    command = (*COMMAND, "tail", "--agent", "support", "--limit", "1", "--data-dir", str(story.data_dir))
    later = story.cut.timestamp + 1
    new = structs.replace(story.reply, decision_id=uuid7(later, 7), timestamp=later, chosen_action="escalate")
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8") as process,
        ThreadPoolExecutor(1) as executor,
    ):
        try:
            assert process.stdout is not None
            assert story.reply.decision_id[:18] in process.stdout.readline()
            journal = Journal(story.data_dir, "later", FakeClock(), executor)
            journal.append(structs.replace(story.cut, decision_id=uuid7(later, 8)))
            journal.append(new)
            journal.close()
            assert "escalate" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


def test_every_help_has_an_example(holdfast: Holdfast) -> None:
    for command in (
        ("decisions", "list"),
        ("decisions", "show"),
        ("decisions", "tail"),
        ("interactions", "list"),
        ("interactions", "show"),
    ):
        assert f"holdfast {' '.join(command)}" in " ".join(holdfast(*command, "--help", COLUMNS="200").stdout.split())


def test_ages_and_times_are_instants() -> None:
    assert instant("") == 0
    assert instant("1970-01-01T00:00:02+00:00") == 2 * SECOND
    hour, day = instant("1h"), instant("1.0 D")
    assert 22 * 3600 * SECOND < hour - day < 24 * 3600 * SECOND
    for text in ("h", "-1h", "2 fortnights", "2026-13-01"):
        with pytest.raises(UsageError):
            instant(text)


def test_figures_are_written_for_people_without_inventing_any() -> None:
    assert (usd(None), usd(0), usd(375_000), usd_number(1), usd_number(None)) == ("–", "$0.00", "$0.000375", 1e-9, None)
    assert (duration(0), duration(1_240_000_000), duration(185 * SECOND)) == ("0 ms", "1.2 s", "3 min 5 s")
    assert printable("a\tb\r\nc\x1b[0m\x00\x85\u202e\ud800") == "a\tb\nc\\x1b[0m\\x00\\x85\\u202e\\ud800"
