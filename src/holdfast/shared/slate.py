"""What each process has used of its slices, in mapped files: after kill -9 its successor reads from them what may be given back.

One folder for all; per process a lock file that says whether it lives, and files of cells. A cell is three integers: the digest of account
and slot in two, what was used in the third. After a restart of the machine nothing in them is known to be right, so nothing is used of it.
"""

import contextlib
import fcntl
import os
from array import array
from pathlib import Path

from holdfast.errors import StorageError
from holdfast.execution.ledger import Remains, row_digest
from holdfast.policy.allowance import Cells
from holdfast.shared.memory import SharedMemory, is_current

CELL = 3
CELLS = (512, 8192)
"""How many cells the first file holds, and each that follows."""
MOST_FILES = 40
"""Beyond about 320,000 cells nothing is kept any more: what is not here counts as spent after a crash."""
_KIND = "slate 1"
_LOCK = ".lock"


class FileSlate:
    """A `holdfast.execution.ledger.Slate` in the folder `folder`, which is made where it is missing. holder: unique per process start.

    Raises StorageError when it cannot be begun; later failures (a full disk) only make it keep less.
    """

    def __init__(self, folder: Path, holder: str) -> None:
        self._folder = folder
        self._holder = holder
        self._files: list[SharedMemory] = []
        self._free: list[tuple[Cells, int]] = []
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder / f"{holder}{_LOCK}")
            self._extend()
        except OSError as error:
            raise StorageError(
                f"{folder} cannot be written: {error.strerror}; check that its folder exists and belongs to this user"
            ) from error

    def open(self, account: str, slot: int, used: int) -> tuple[Cells, int]:
        if not self._free:
            with contextlib.suppress(StorageError):
                self._extend()
            if not self._free:
                return array("q", [used]), 0
        cells, at = self._free.pop()
        cells[at] = used  # before the digest: a cell that is found was filled
        cells[at - 2], cells[at - 1] = _halves(account, slot)
        return cells, at

    def close(self, account: str, slot: int, cells: Cells, at: int) -> None:
        if at:
            cells[at - 1] = cells[at - 2] = 0
            self._free.append((cells, at))

    def end(self) -> None:
        """A clean end, after everything was reported: nothing is left to be found."""
        _remove(self._folder, self._holder)
        os.close(self._lock)

    def _extend(self) -> None:
        number = len(self._files)
        if number >= MOST_FILES:
            return
        count = CELLS[min(number, 1)]
        file = SharedMemory(self._folder / f"{self._holder}.{number}", count * CELL * 8, _KIND)
        self._files.append(file)
        cells: Cells = file.view.cast("q")
        self._free += [(cells, at * CELL + 2) for at in reversed(range(count))]


class Dead:
    """A process that ended without a clean end, and what it left; nobody else looks at it until `forget` or `close`."""

    def __init__(self, folder: Path, holder: str, lock: int) -> None:
        self._folder = folder
        self._lock = lock
        self.remains = Remains(holder, _used(folder, holder))

    def forget(self) -> None:
        """The ledger knows now: remove the files."""
        _remove(self._folder, self.remains.holder)
        self.close()

    def close(self) -> None:
        """Leave them for the next who looks."""
        os.close(self._lock)


def the_dead(folder: Path) -> list[Dead]:
    """Those whose files are in the folder and who live no more."""
    found = []
    for path in sorted(folder.glob(f"*{_LOCK}")):
        with contextlib.suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is(path, lock):
                    found.append(Dead(folder, path.name.removesuffix(_LOCK), lock))
                    continue
            except BlockingIOError:  # it lives
                pass
            os.close(lock)
    return found


def _locked(path: Path) -> int:
    """Hold the lock file; who looked at it between its making and its locking may have removed it again."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is(path, lock):
            return lock
        os.close(lock)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _used(folder: Path, holder: str) -> dict[bytes, int] | None:
    """By `row_digest`; None when any of it was lost."""
    used: dict[bytes, int] = {}
    for number, path in enumerate(_files(folder, holder)):
        size = CELLS[min(number, 1)] * CELL * 8
        if path.name != f"{holder}.{number}" or not is_current(path, size, _KIND):
            return None
        file = SharedMemory(path, size, _KIND)
        content = bytes(file.view)
        file.close()
        for at in range(0, size, CELL * 8):
            digest, amount = content[at : at + 16], content[at + 16 : at + 24]
            if any(digest):
                used[digest] = max(used.get(digest, 0), int.from_bytes(amount, "little", signed=True))
    return used


def _files(folder: Path, holder: str) -> list[Path]:
    numbered = [(int(path.suffix[1:]), path) for path in folder.glob(f"{holder}.*") if path.suffix[1:].isdigit()]
    return [path for _, path in sorted(numbered)]


def _remove(folder: Path, holder: str) -> None:
    """The lock last: without it the others would never be found."""
    for path in [*_files(folder, holder), folder / f"{holder}{_LOCK}"]:
        path.unlink(missing_ok=True)


def _halves(account: str, slot: int) -> tuple[int, int]:
    digest = row_digest(account, slot)
    return int.from_bytes(digest[:8], "little", signed=True), int.from_bytes(digest[8:], "little", signed=True)
