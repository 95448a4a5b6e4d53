"""The journal's promise: a flushed event is in the file, whole, in order; what is lost is counted."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from holdfast.clock import MILLISECOND
from holdfast.errors import StorageError
from holdfast.events import Context, Decision, Event
from holdfast.store.files import journal_files, started_ns_of
from holdfast.store.journal import Journal, JournalOptions
from holdfast.store.reader import JournalReader
from holdfast.testing import FakeClock

NewJournal = Callable[..., Journal]
NewDecision = Callable[..., Decision]


def written(data_dir: Path) -> list[Event]:
    """All events, oldest first."""
    return list(JournalReader(data_dir).events())[::-1]


def test_nothing_is_created_before_the_first_flush_with_an_event(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal(data_dir=tmp_path / "data")
    journal.flush()
    assert not (tmp_path / "data").exists()
    journal.append(decision())
    assert not (tmp_path / "data").exists()
    journal.flush()
    assert len(written(tmp_path / "data")) == 1
    journal.close()


def test_a_flushed_event_is_in_the_file_before_close(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal()
    events = [decision(), decision()]
    for event in events:
        journal.append(event)
        journal.flush()
    assert written(tmp_path) == events
    journal.close()


def test_only_the_owner_can_read_what_was_recorded(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal(data_dir=tmp_path / "data")
    journal.append(decision())
    journal.close()
    assert journal.path is not None
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_file_names_tell_start_and_writer_and_sort_by_time(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision, clock: FakeClock
) -> None:
    for holder in ("up-1", "run/../x y"):
        journal = new_journal(holder)
        journal.append(decision())
        journal.close()
        assert journal.path is not None
        assert started_ns_of(journal.path.name) == clock.wall_ns()
        clock.advance(MILLISECOND)
    assert [file.path.name for file in journal_files(tmp_path)] == [
        "20260101T000000.000Z-up-1-000001.ndjson",
        "20260101T000000.001Z-run_.._x_y-000001.ndjson",
    ]


def test_writers_of_one_name_in_one_millisecond_do_not_share_a_file(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journals = [new_journal(), new_journal()]
    for journal in journals:
        journal.append(decision())
        journal.flush()
    assert journals[0].path != journals[1].path
    for journal in journals:
        journal.close()
    assert len(written(tmp_path)) == 2


def test_a_full_file_is_followed_by_a_new_one(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal(rotate_bytes=1000)
    events = [decision() for _ in range(20)]
    for event in events:
        journal.append(event)
        journal.flush()
    journal.close()
    sizes = [file.size for file in journal_files(tmp_path)]
    assert len(sizes) > 3
    assert all(size < 1000 + 400 for size in sizes)
    assert written(tmp_path) == events


def test_contexts_are_known_per_file(new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal(rotate_bytes=1000)
    context = Context(digest="d1", role="system", content=Raw(b'"be kind"'))
    assert not journal.has_context("d1")
    journal.append(context)
    assert journal.has_context("d1")
    journal.flush()
    assert journal.has_context("d1")
    journal.append(decision(answer="x" * 1000))
    assert journal.has_context("d1"), "the decision goes to the file that holds it"
    journal.flush()
    assert not journal.has_context("d1"), "the new file does not hold it"
    journal.close()


class Syncs:
    """Counts syncs; `fail` makes them fail."""

    def __init__(self) -> None:
        self.done = 0
        self.fail = False

    def __call__(self, descriptor: int) -> None:
        os.fstat(descriptor)
        if self.fail:
            raise OSError(5, "Input/output error")
        self.done += 1


def test_writes_are_synced_within_the_time_promised_and_idle_journals_are_left_alone(
    tmp_path: Path, clock: FakeClock, decision: NewDecision
) -> None:
    syncs = Syncs()
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "w", clock, executor, sync=syncs)
        for _ in range(3):
            journal.append(decision())
            journal.flush()
        clock.advance(49 * MILLISECOND)
        executor.submit(int).result()
        assert syncs.done == 0
        clock.advance(MILLISECOND)
        executor.submit(int).result()
        assert syncs.done == 1
        clock.advance(1000 * MILLISECOND)
        executor.submit(int).result()
        assert (syncs.done, clock.pending) == (1, 0)
        journal.close()
        assert (syncs.done, clock.pending) == (2, 0)


def test_a_failed_sync_is_raised_once_by_the_next_flush(tmp_path: Path, clock: FakeClock, decision: NewDecision) -> None:
    syncs = Syncs()
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(tmp_path, "w", clock, executor, sync=syncs)
        journal.append(decision())
        journal.flush()
        syncs.fail = True
        clock.advance(50 * MILLISECOND)
        executor.submit(int).result()
        syncs.fail = False
        with pytest.raises(StorageError, match="may have lost"):
            journal.flush()
        journal.flush()
        assert journal.sync_failures == 1
        journal.close()


def test_a_full_disk_refuses_and_nothing_is_lost_once_there_is_room(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision, disk: Any
) -> None:
    journal = new_journal(on_failure="refuse")
    events = [decision() for _ in range(4)]
    journal.append(events[0])
    journal.flush()
    disk.room = 100
    journal.append(events[1])
    journal.append(events[2])
    with pytest.raises(StorageError, match="No space left"):
        journal.flush()
    with pytest.raises(StorageError, match="No space left"):
        journal.flush()
    disk.room = None
    journal.flush()
    journal.append(events[3])
    journal.close()
    reader = JournalReader(tmp_path)
    assert list(reader.events())[::-1] == events
    assert (journal.lost_events, reader.damage) == (0, [])


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_full_disk_that_may_lose_events_counts_them_and_spoils_no_other_line(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision, disk: Any, room: int
) -> None:
    journal = new_journal(on_failure="continue")
    events = [decision() for _ in range(6)]
    journal.append(events[0])
    journal.flush()
    disk.room = room
    for event in events[1:4]:
        journal.append(event)
        journal.flush()
    disk.room = None
    for event in events[4:]:
        journal.append(event)
        journal.flush()
    journal.close()
    reader = JournalReader(tmp_path)
    assert list(reader.events())[::-1] == [events[0], *events[4:]]
    assert journal.lost_events == 3
    assert len(reader.damage) == (1 if room else 0)


def test_a_context_that_was_lost_is_asked_for_again(new_journal: NewJournal, decision: NewDecision, disk: Any) -> None:
    journal = new_journal(on_failure="continue")
    journal.append(decision())
    journal.flush()
    disk.room = 10
    journal.append(Context(digest="d1", role="system", content=Raw(b'"be kind"')))
    journal.flush()
    assert not journal.has_context("d1")
    disk.room = None
    journal.close()


def test_a_disk_that_stays_full_does_not_fill_the_memory(
    new_journal: NewJournal, decision: NewDecision, disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.store.journal.HELD_BYTES", 5_000)
    journal = new_journal(on_failure="refuse")
    disk.room = 0
    for _ in range(100):
        journal.append(decision(answer="x" * 1000))
        with pytest.raises(StorageError):
            journal.flush()
    assert journal.lost_events >= 90
    disk.room = None
    journal.close()


def test_a_folder_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    (tmp_path / "file").write_text("")
    journal = new_journal(data_dir=tmp_path / "file")
    journal.append(decision())
    with pytest.raises(StorageError, match="cannot be written"):
        journal.flush()
    with pytest.raises(StorageError):
        journal.close()
    assert journal.lost_events == 1


def test_trouble_is_told_until_a_flush_finds_the_disk_working_again(new_journal: NewJournal, decision: NewDecision, disk: Any) -> None:
    journal = new_journal()
    disk.room = 0
    journal.append(decision())
    for _ in range(2):  # the second with nothing new: somebody looks after it
        with pytest.raises(StorageError):
            journal.flush()
        assert "cannot be written (No space left on device)" in journal.trouble
    disk.room = None
    journal.flush()
    assert journal.trouble == ""
    journal.close()


def test_a_journal_that_may_lose_events_is_never_in_trouble(new_journal: NewJournal, decision: NewDecision, disk: Any) -> None:
    journal = new_journal(on_failure="continue")
    disk.room = 0
    journal.append(decision())
    journal.flush()
    assert journal.trouble == ""
    disk.room = None
    journal.close()


WRITER = """
import resource, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from holdfast.errors import StorageError
from holdfast.events import InteractionStarted
from holdfast.store.journal import Journal, JournalOptions
from holdfast.testing import FakeClock
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
journal = Journal(folder, "child", FakeClock(), ThreadPoolExecutor(1), JournalOptions(rotate_bytes=200_000))
number = 0
while True:
    number += 1
    journal.append(InteractionStarted(interaction=str(number), timestamp=number, agent="a" * 500, release="r", identified_by="header"))
    try:
        journal.flush()
    except StorageError as error:
        print(error, flush=True)
        break
    print(number, flush=True)
"""


def test_kill_9_loses_no_acknowledged_event(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), "0"], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 1000:
            pass
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else 1000
    newest = JournalReader(tmp_path)
    numbers = [int(event.interaction) for event in newest.events() if hasattr(event, "interaction")][::-1]
    assert numbers[:acknowledged] == list(range(1, acknowledged + 1))
    assert len(numbers) <= acknowledged + 1
    assert len(newest.damage) <= 1
    assert len(newest.files()) > 1


def test_a_real_limit_of_the_file_size_leaves_one_torn_line(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path), "5000"], capture_output=True, text=True, timeout=60, check=True)
    *acknowledged, sentence = child.stdout.splitlines()
    assert "File too large" in sentence
    reader = JournalReader(tmp_path)
    assert len(list(reader.events())) == len(acknowledged) > 1
    [torn] = reader.damage
    assert torn.torn
    assert torn.file == reader.files()[0].path
    assert JournalOptions().on_failure == "refuse"
