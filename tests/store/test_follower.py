"""Following: every event once, as it comes, over rotations and new writers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.events import Decision
from holdfast.store.follower import Follower, follow
from holdfast.store.journal import Journal

NewJournal = Callable[..., Journal]
NewDecision = Callable[..., Decision]


def test_what_was_there_before_is_not_followed_and_new_events_come_once(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision
) -> None:
    journal = new_journal()
    journal.append(decision())
    journal.flush()
    follower = Follower(tmp_path)
    assert follower.poll() == []
    new = decision()
    journal.append(new)
    journal.flush()
    assert follower.poll() == [new]
    assert follower.poll() == []
    journal.close()


def test_rotations_and_new_writers_are_followed_by_time(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    follower = Follower(tmp_path)
    journals = [new_journal("a", rotate_bytes=700), new_journal("b", rotate_bytes=700)]
    expected, seen = [], []
    for _ in range(10):
        for journal in journals:
            expected.append(decision())
            journal.append(expected[-1])
            journal.flush()
        seen += follower.poll()
    for journal in journals:
        journal.close()
    assert len(list((tmp_path / "journal").iterdir())) > 4
    assert seen == expected


def test_a_line_is_read_when_it_has_ended(tmp_path: Path, new_journal: NewJournal, decision: NewDecision, disk: Any) -> None:
    journal = new_journal(on_failure="refuse")
    journal.append(decision())
    journal.flush()
    disk.room = 50
    late = decision()
    journal.append(late)
    with pytest.raises(Exception, match="No space"):
        journal.flush()
    follower = Follower(tmp_path)
    assert follower.poll() == []
    disk.room = None
    journal.close()
    assert follower.poll() == [late]


def test_damage_is_told_and_passed_over(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    follower = Follower(tmp_path)
    journal = new_journal()
    journal.append(decision())
    journal.close()
    assert journal.path is not None
    with journal.path.open("ab") as file:
        place = file.tell()
        file.write(b"garbage\n")
    assert len(follower.poll()) == 1
    assert [(damage.file, damage.offset) for damage in follower.damage] == [(journal.path, place)]


def test_following_waits_between_polls_until_the_wait_ends_it(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    journal = new_journal()
    to_write = [decision() for _ in range(3)]
    left = list(to_write)

    def wait() -> None:
        if not left:
            raise KeyboardInterrupt
        journal.append(left.pop(0))
        journal.flush()

    seen = []
    with pytest.raises(KeyboardInterrupt):
        for event in follow(Follower(tmp_path), wait):
            seen.append(event)  # noqa: PERF402 - the iteration ends by an exception
    assert seen == to_write
    journal.close()
