"""Jobs on disk: whole or not there, worked on by one process at a time, intact after kill -9 at any moment."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from holdfast.errors import StorageError
from holdfast.policy.job import Answered, Begun, Cancelled, Submitted, Tried
from holdfast.store.jobs import Census, JobFiles

BODY = b'{"model":"m"}' * 100


def submitted(number: int = 0) -> Submitted:
    return Submitted(
        id=f"{number:08x}",
        at=1,
        agent="a",
        name="a",
        release="unreleased",
        method="POST",
        path="/v1/chat/completions",
        headers=(("content-type", "application/json"),),
        body=BODY,
        deadline=1 << 60,
    )


def answered(body: bytes = b"hi") -> Answered:
    return Answered(at=3, ending="done", status=200, headers=(("content-type", "text/plain"),), body=body)


def test_a_job_is_read_back_as_its_records_say(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.add(submitted())
    claim = files.claim("waiting", "00000000")
    assert claim is not None
    for record, status in (
        (Begun(at=2, call="c"), "running"),
        (Tried(at=2, retry_at=9, status=503), "queued"),
        (Begun(at=9, call="d"), "running"),
        (answered(b"\x00\n\xff"), "done"),
    ):
        claim.append(record)
        job = files.read("00000000")
        assert job is not None
        assert job.status == claim.job.status == status
    claim.move("ended")
    job = files.read("00000000")
    assert job is not None and job.answered is not None
    assert (job.submitted, job.tries, job.failures, job.answered.body) == (submitted(), 2, 1, b"\x00\n\xff")
    assert (files.ids("waiting"), files.ids("ended")) == ([], ["00000000"])


def test_nothing_of_a_job_can_be_read_by_other_users(tmp_path: Path) -> None:
    JobFiles(tmp_path).add(submitted())
    assert [path for path in (tmp_path / "jobs").rglob("*") if path.stat().st_mode & 0o77] == []


def test_a_job_in_hand_is_nobody_elses_until_it_is_released(tmp_path: Path) -> None:
    files, others = JobFiles(tmp_path), JobFiles(tmp_path)
    files.add(submitted())
    claim = files.claim("waiting", "00000000")
    assert claim is not None
    assert others.claim("waiting", "00000000") is None
    claim.release()
    taken = others.claim("waiting", "00000000")
    assert taken is not None
    taken.append(Cancelled(at=2))
    taken.move("ended")
    assert files.claim("waiting", "00000000") is None


def test_a_job_that_ends_while_another_reaches_for_it_is_not_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = JobFiles(tmp_path)
    files.add(submitted())
    claim = files.claim("waiting", "00000000")
    assert claim is not None
    flock = fcntl.flock

    def late(descriptor: int, how: int) -> None:
        claim.move("ended")
        flock(descriptor, how)

    monkeypatch.setattr("holdfast.store.jobs.fcntl.flock", late)
    assert JobFiles(tmp_path).claim("waiting", "00000000") is None


def test_a_torn_last_record_is_as_if_it_had_never_been_written(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.add(submitted())
    claim = files.claim("waiting", "00000000")
    assert claim is not None
    claim.append(Begun(at=2, call="c"))
    claim.append(answered())
    claim.release()
    path = files.path("waiting", "00000000")
    whole = path.read_bytes()
    for cut in range(1, 20):
        path.write_bytes(whole[:-cut])
        job = files.read("00000000")
        assert job is not None and job.answered is None
        again = files.claim("waiting", "00000000")
        assert again is not None and again.job.answered is None
        again.append(answered(b"anew"))
        again.release()
        job = files.read("00000000")
        assert job is not None and job.answered is not None and job.answered.body == b"anew"


def test_what_cannot_be_written_leaves_the_job_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = JobFiles(tmp_path)
    files.add(submitted())
    claim = files.claim("waiting", "00000000")
    assert claim is not None
    before = files.path("waiting", "00000000").read_bytes()
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as disk:
        disk.setattr("holdfast.store.jobs.os.write", half)
        with pytest.raises(StorageError, match="free space"):
            claim.append(answered(b"x" * 1000))
        with pytest.raises(StorageError):
            files.add(submitted(1))
    assert files.path("waiting", "00000000").read_bytes() == before
    assert files.ids("waiting") == ["00000000"]
    claim.append(answered())
    assert files.read("00000000") is not None


def test_jobs_are_counted_and_leave_when_they_were_kept_long_enough(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    for number in range(3):
        files.add(submitted(number))
    claim = files.claim("waiting", "00000001")
    assert claim is not None
    claim.append(answered())
    claim.move("ended")
    (tmp_path / "jobs" / "waiting" / ".unfinished").write_bytes(b"x")
    size = sum(path.stat().st_size for path in (tmp_path / "jobs").rglob("*.ndjson"))
    assert files.census(0) == Census(4, size + 1)
    for path in (tmp_path / "jobs").rglob("*"):
        os.utime(path, ns=(1000, 1000))
    assert files.census(1001).jobs == 2
    assert (files.ids("waiting"), files.ids("ended")) == (["00000000", "00000002"], [])


def test_a_key_leads_to_the_job_that_came_with_it_first_wherever_that_is(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    assert files.add(submitted(1), "k").submitted.id == "00000001"
    assert files.add(submitted(2), "k").submitted.id == "00000001"
    assert files.add(submitted(3), "l").submitted.id == "00000003"
    claim = files.claim("waiting", "00000001")
    assert claim is not None
    claim.append(answered())
    claim.move("ended")
    assert files.add(submitted(4), "k").status == "done"
    assert (files.ids("waiting"), files.ids("ended")) == (["00000003"], ["00000001"])
    assert files.forget("00000001")
    files.census(0)
    assert files.add(submitted(5), "k").submitted.id == "00000005"


def test_a_job_whose_taker_died_before_it_was_in_its_place_is_put_there_when_it_is_sent_again(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.add(submitted(1), "k")
    files.path("waiting", "00000001").rename(tmp_path / "jobs" / "waiting" / ".00000001")  # as it was in that moment
    assert files.ids("waiting") == []
    assert files.add(submitted(2), "k").submitted.id == "00000001"
    assert files.ids("waiting") == ["00000001"]
    assert files.claim("waiting", "00000001") is not None


@pytest.mark.parametrize("identifier", ["", "..", "../ended/00000000", "a/b", "x", "0" * 300, "\x00"])
def test_no_id_leads_out_of_the_folder(tmp_path: Path, identifier: str) -> None:
    assert JobFiles(tmp_path).read(identifier) is None


WORKER = """
import os, sys
from pathlib import Path
from holdfast.policy.job import Answered, Begun
from holdfast.store.jobs import JobFiles

files, executed = JobFiles(Path(sys.argv[1])), os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND)
while ids := files.ids("waiting"):
    for identifier in ids:
        claim = files.claim("waiting", identifier)
        if claim is None:
            continue
        if claim.job.answered is None:
            claim.append(Begun(at=1, call="c"))
            os.write(executed, identifier.encode() + b"\\n")
            claim.append(Answered(at=2, ending="done", status=200, headers=(), body=b"x" * 20_000))
            os.write(executed, identifier.encode() + b" answered\\n")
        claim.move("ended")
"""


def test_no_job_is_lost_and_none_executed_again_once_answered_however_often_its_workers_are_killed(tmp_path: Path) -> None:
    files, log, jobs, random = JobFiles(tmp_path), tmp_path / "executed", 400, Random(7)
    log.touch()
    for number in range(jobs):
        files.add(submitted(number))
    workers: list[subprocess.Popen[bytes]] = []
    pause, kills, written = threading.Event(), 0, 0
    while files.ids("waiting"):
        workers = [worker for worker in workers if worker.poll() is None]
        while len(workers) < 3:
            workers.append(subprocess.Popen((sys.executable, "-c", WORKER, str(tmp_path), str(log))))
        pause.wait(random.uniform(0, 0.004))
        if log.stat().st_size > written + random.randrange(400):  # there is progress, so somebody is at it
            written = log.stat().st_size
            workers[random.randrange(3)].send_signal(signal.SIGKILL)
            kills += 1
    for worker in workers:
        assert worker.wait(60) in (0, -signal.SIGKILL)
    assert len(files.ids("ended")) == jobs
    lines = log.read_text().splitlines()
    done: set[str] = set()
    for line in lines:
        identifier, _, answer = line.partition(" ")
        if answer:
            done.add(identifier)
        else:
            assert identifier not in done, "executed again after its answer was safe"
    executed = Counter(line for line in lines if " " not in line)
    assert len(executed) == jobs
    assert kills > 10
    assert sum(executed.values()) <= jobs + kills
