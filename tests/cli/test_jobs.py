"""`holdfast jobs` as its users and their scripts meet it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.policy.job import Answered, Begun, Submitted
from holdfast.store.jobs import JobFiles

Holdfast = Callable[..., Any]
EVIL = "\x1b]0;evil\x07"


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    """Three jobs: one was answered, one is being tried, one waits."""
    files = JobFiles(tmp_path / "data")
    for number in range(3):
        files.add(
            Submitted(
                id=f"019ab2c{number}-0000",
                at=1_767_225_600_000_000_000,
                agent="support",
                name="support",
                release="v1",
                model="gpt-5.1" + EVIL,
                method="POST",
                path="/v1/chat/completions",
                headers=(),
                body=b"{}",
                deadline=1_767_229_200_000_000_000,
            )
        )
    claim = files.claim("waiting", "019ab2c0-0000")
    assert claim is not None
    claim.append(Begun(at=1, call="c"))
    body = ('{"answer": "42"}' + EVIL).encode()
    claim.append(Answered(at=1_767_225_601_000_000_000, ending="done", status=200, headers=(), body=body, decision="019ab2c9"))
    claim.move("ended")
    return files


def test_the_list_shows_how_each_stands_the_newest_first(files: JobFiles, holdfast: Holdfast) -> None:
    done = holdfast("jobs", "list")
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["ID", "STATUS", "CREATED", "AGENT", "MODEL", "TRIES", "ANSWER"]
    assert [row.split()[:2] for row in rows] == [
        ["019ab2c2-0000", "queued"],
        ["019ab2c1-0000", "queued"],
        ["019ab2c0-0000", "done"],
    ]
    assert "\x1b" not in done.stdout


def test_filters_and_json_are_for_scripts(files: JobFiles, holdfast: Holdfast) -> None:
    done = holdfast("jobs", "list", "--json", "--status", "queued", "--limit", "1")
    (job,) = map(json.loads, done.stdout.splitlines())
    assert (job["id"], job["status"], job["deadline"]) == ("019ab2c2-0000", "queued", "2026-01-01T01:00:00.000Z")


def test_a_status_that_there_is_not_is_told_with_the_nearest_one(holdfast: Holdfast) -> None:
    done = holdfast("jobs", "list", "--status", "faild")
    assert done.returncode == 2 and 'did you mean "failed"?' in done.stderr


def test_show_tells_what_was_answered(files: JobFiles, holdfast: Holdfast) -> None:
    done = holdfast("jobs", "show", "019ab2c0")
    assert "status: done" in done.stdout and '{"answer": "42"}' in done.stdout and "decision: 019ab2c9" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(holdfast("jobs", "show", "019ab2c0", "--json").stdout)["body"].startswith('{"answer": "42"}')


def test_only_a_queued_job_is_cancelled(files: JobFiles, holdfast: Holdfast) -> None:
    claim = files.claim("waiting", "019ab2c1-0000")
    assert claim is not None
    for identifier, why in (("019ab2c0", "is done"), ("019ab2c1", "is being tried right now"), ("019ab2c", "3 jobs"), ("7", "no job 7")):
        refused = holdfast("jobs", "cancel", identifier)
        assert (refused.returncode, why in refused.stderr) == (1, True), refused.stderr
    assert holdfast("jobs", "cancel", "019ab2c2").stdout == "Cancelled the job 019ab2c2-0000.\n"
    job = files.read("019ab2c2-0000")
    assert job is not None and job.status == "cancelled"


def test_where_there_are_none_the_list_says_how_one_comes_to_be(tmp_path: Path, holdfast: Holdfast) -> None:
    done = holdfast("jobs", "list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Prefer: respond-async" in done.stderr
    assert not (tmp_path / "data").exists()
