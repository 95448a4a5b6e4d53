"""`holdfast run` takes its words, checks them before anything starts, and passes on what the guarded run exits with."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast import cli
from holdfast.clock import SECOND
from holdfast.errors import CannotStart
from holdfast.money import NANO
from holdfast.runner.request import RunRequest


class Asked:
    """Stands where the composition root does: keeps the request, answers with a code."""

    def __init__(self) -> None:
        self.request: RunRequest | None = None
        self.answer: int | CannotStart = 0

    def run_guarded(self, request: RunRequest) -> int:
        self.request = request
        if isinstance(self.answer, CannotStart):
            raise self.answer
        return self.answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    stand_in = Asked()
    monkeypatch.setitem(sys.modules, "holdfast.assembly.guarded_run", SimpleNamespace(run_guarded=stand_in.run_guarded))
    monkeypatch.delenv("HOLDFAST_CONFIG", raising=False)
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return stand_in


def holdfast_run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["holdfast", "run", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0)


def test_the_checklists_own_command_line(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked.answer = 122
    code = holdfast_run(
        monkeypatch, "--timeout", "30", "--max-retries", "3", "--cost-limit", "500", "--", "python", "agent.py", "--timeout", "1"
    )
    assert code == 122
    assert asked.request == RunRequest(
        command=("python", "agent.py", "--timeout", "1"),
        config=None,
        data_dir=tmp_path,
        timeout_ns=30 * SECOND,
        max_retries=3,
        cost_limit=500 * NANO,
    )


def test_every_option_and_no_dashes_before_the_command(asked: Asked, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").touch()
    words = "--config c.yaml --agent support --release v2 --user ada --call-limit 0 --calls-per-hour 1000 --token-limit 9"
    words += " --summary s.json agent -x"
    assert holdfast_run(monkeypatch, *words.split()) == 0
    assert asked.request == RunRequest(
        command=("agent", "-x"),
        config=Path("c.yaml"),
        data_dir=tmp_path,
        agent="support",
        release="v2",
        user="ada",
        call_limit=0,
        calls_per_hour=1000,
        token_limit=9,
        summary=Path("s.json"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument"),
        (["--"], "Missing argument"),
        (["--timeout", "0", "--", "agent"], "--timeout 0"),
        (["--timeout", "-1", "--", "agent"], "--timeout -1"),
        (["--timeout", "nan", "--", "agent"], "--timeout nan"),
        (["--timeout", "inf", "--", "agent"], "--timeout inf"),
        (["--timeout", "30s", "--", "agent"], "--timeout 30s is not a number of seconds"),
        (["--", ""], "the command is empty"),
        (["--call-limit", "9" * 30, "--", "agent"], "--call-limit"),
        (["--cost-limit", "1e999999999", "--", "agent"], "--cost-limit 1e999999999"),
        (["--cost-limit", "-5", "--", "agent"], "--cost-limit -5"),
        (["--cost-limit", "nan", "--", "agent"], "--cost-limit nan"),
        (["--cost-limit", "ten", "--", "agent"], "--cost-limit ten"),
        (["--max-retries", "-1", "--", "agent"], "--max-retries"),
        (["--call-limit", "-1", "--", "agent"], "--call-limit"),
        (["--token-limit", "-1", "--", "agent"], "--token-limit"),
        (["--calls-per-hour", "1.5", "--", "agent"], "--calls-per-hour"),
        (["--summary", "no/such/folder/s.json", "--", "agent"], "does not exist"),
        (["--cost", "5", "--", "agent"], "No such option"),
    ],
)
def test_wrong_usage_is_refused_with_2_before_anything_starts(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert holdfast_run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert asked.request is None


def test_the_record_is_looked_up_where_the_run_wrote_it(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    assert holdfast_run(monkeypatch, "--data-dir", "my data", "agent") == 0
    assert asked.request is not None and asked.request.look_up == " --data-dir 'my data'"


def test_a_command_that_cannot_start_is_one_sentence_and_the_shells_code(
    asked: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked.answer = CannotStart("there is no command 'agnet'; check its name and PATH", 127)
    assert holdfast_run(monkeypatch, "--", "agnet") == 127
    assert capsys.readouterr().err == "holdfast: there is no command 'agnet'; check its name and PATH\n"
