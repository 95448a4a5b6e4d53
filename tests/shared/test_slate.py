import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import StorageError
from holdfast.execution.ledger import Remains, row_digest
from holdfast.shared import memory, slate
from holdfast.shared.slate import FileSlate, the_dead

# A process that opens slices named on the command line (account, slot, used), uses one more of each, and is killed.
KILLED = """
import os, signal, sys
from pathlib import Path
from holdfast.shared.slate import FileSlate
slate = FileSlate(Path(sys.argv[1]), sys.argv[2])
for at in range(3, len(sys.argv), 3):
    cells, place = slate.open(sys.argv[at], int(sys.argv[at + 1]), int(sys.argv[at + 2]))
    cells[place] += 1
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill(folder: Path, holder: str, *slices: str) -> None:
    process = subprocess.run([sys.executable, "-c", KILLED, str(folder), holder, *slices], check=False)
    assert process.returncode == -signal.SIGKILL


def remains(folder: Path) -> list[Remains]:
    dead = the_dead(folder)
    for each in dead:
        each.close()
    return [each.remains for each in dead]


def test_what_a_killed_process_had_used_is_found(tmp_path: Path) -> None:
    kill(tmp_path, "a1", "x", "7", "40", "y", "7", "0")
    assert remains(tmp_path) == [Remains("a1", {row_digest("x", 7): 41, row_digest("y", 7): 1})]


def test_it_is_found_until_it_is_forgotten_and_then_no_file_is_left(tmp_path: Path) -> None:
    kill(tmp_path, "a1", "x", "7", "40")
    assert len(remains(tmp_path)) == 1
    (dead,) = the_dead(tmp_path)
    assert the_dead(tmp_path) == []  # one looks at a time
    dead.forget()
    assert [*tmp_path.iterdir()] == []


def test_a_process_that_lives_is_left_alone_and_one_that_ended_cleanly_leaves_nothing(tmp_path: Path) -> None:
    lives = FileSlate(tmp_path, "a1")
    lives.open("x", 7, 40)
    assert the_dead(tmp_path) == []
    lives.end()
    assert [*tmp_path.iterdir()] == []


def test_a_closed_place_is_used_again_and_shows_only_what_is_open(tmp_path: Path) -> None:
    here = FileSlate(tmp_path, "a1")
    for slot in range(5_000):
        cells, at = here.open("x", slot, slot)
        here.close("x", slot, cells, at)
    here.open("y", 1, 5)
    assert len([*tmp_path.iterdir()]) == 2
    assert slate._used(tmp_path, "a1") == {row_digest("y", 1): 5}
    here.end()


def test_more_slices_than_one_file_holds_are_all_found(tmp_path: Path) -> None:
    here = FileSlate(tmp_path, "a1")
    for slot in range(10_000):
        here.open("x", slot, slot)
    assert slate._used(tmp_path, "a1") == {row_digest("x", slot): slot for slot in range(10_000)}
    here.end()


def test_after_the_machine_started_again_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(tmp_path, "a1", "x", "7", "40")
    monkeypatch.setattr(memory, "boot_id", lambda: b"another start")
    assert remains(tmp_path) == [Remains("a1", None)]


def test_a_file_that_is_missing_among_its_like_makes_nothing_known(tmp_path: Path) -> None:
    kill(tmp_path, "a1", *[part for slot in range(600) for part in ("x", str(slot), "1")])
    (tmp_path / "a1.0").unlink()
    assert remains(tmp_path) == [Remains("a1", None)]


def test_a_full_disk_only_makes_it_keep_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = FileSlate(tmp_path, "a1")

    def full(path: Path, size: int, kind: str) -> None:
        raise StorageError(f"{path}: no space")

    monkeypatch.setattr(slate, "SharedMemory", full)
    places = [here.open("x", slot, 9) for slot in range(600)]
    assert all(cells[at] == 9 for cells, at in places)
    for slot, (cells, at) in enumerate(places):
        here.close("x", slot, cells, at)
    here.end()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    here = FileSlate(tmp_path / "slices", "a1")
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "slices").iterdir()} == {0o600}
    assert (tmp_path / "slices").stat().st_mode & 0o777 == 0o700
    here.end()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot be written"):
        FileSlate(tmp_path, "a1")
