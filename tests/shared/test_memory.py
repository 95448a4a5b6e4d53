import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.errors import StorageError
from holdfast.shared import memory
from holdfast.shared.memory import HEADER, SharedMemory


def test_what_another_process_writes_is_seen_at_once_and_survives_its_being_killed(tmp_path: Path) -> None:
    here = SharedMemory(tmp_path / "board", 64, "board 1")
    code = """
import os, signal, sys
from pathlib import Path
from holdfast.shared.memory import SharedMemory
there = SharedMemory(Path(sys.argv[1]), 64, "board 1")
there.view[3] = 7
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "board")], check=False)
    assert here.view[3] == 7
    here.close()
    again = SharedMemory(tmp_path / "board", 64, "board 1")
    assert bytes(again.view) == bytes(3) + b"\x07" + bytes(60)
    again.close()


def test_it_is_empty_after_the_machine_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = SharedMemory(tmp_path / "board", 64, "board 1")
    before.view[0] = 1
    before.close()
    monkeypatch.setattr(memory, "boot_id", lambda: b"another start")
    after = SharedMemory(tmp_path / "board", 64, "board 1")
    assert bytes(after.view) == bytes(64)
    after.close()


def test_a_lock_keeps_other_processes_out_until_its_holder_dies(tmp_path: Path) -> None:
    here = SharedMemory(tmp_path / "board", 64, "board 1")
    code = """
import fcntl, os, sys
with open(sys.argv[1], "r+b") as file:
    for start in (0, 32):
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 8, int(sys.argv[2]) + start)
            print("free")
        except OSError:
            print("taken")
"""

    def tried() -> list[str]:
        return subprocess.check_output([sys.executable, "-c", code, str(tmp_path / "board"), str(HEADER)], text=True).split()

    with here.locked(0, 8):
        assert tried() == ["taken", "free"]
    assert tried() == ["free", "free"]
    here.close()


@pytest.mark.parametrize(("size", "kind"), [(128, "board 1"), (64, "board 2")])
def test_a_file_of_another_layout_is_refused(tmp_path: Path, size: int, kind: str) -> None:
    SharedMemory(tmp_path / "board", 64, "board 1").close()
    with pytest.raises(StorageError, match="another version"):
        SharedMemory(tmp_path / "board", size, kind)


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    SharedMemory(tmp_path / "folder" / "board", 64, "board 1").close()
    assert (tmp_path / "folder" / "board").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "board").mkdir()
    with pytest.raises(StorageError, match="board cannot be opened"):
        SharedMemory(tmp_path / "board", 64, "board 1")
