"""The journal's writer: events in memory, one write(2) per flush, on stable storage soon after without blocking the event loop."""

import contextlib
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

from msgspec import Struct

from holdfast.clock import MILLISECOND, Clock, Timer
from holdfast.errors import StorageError
from holdfast.events import Context, Event, encode_into
from holdfast.store.files import FOLDER, file_name

if sys.platform == "darwin":
    import fcntl

HELD_BYTES = 8 << 20
"""How much is held back for a disk that cannot be written before events are given up."""

_NEWLINE = 10
_CLOSED = -1


class JournalOptions(Struct, frozen=True, kw_only=True):
    """rotate_bytes: a file that reached this size is followed by a new one. sync_ns: the longest that written events wait for
    fdatasync to begin. on_failure: what a full or broken disk does: "refuse" makes `flush` raise, "continue" loses events and counts them.
    """

    rotate_bytes: int = 64 << 20
    sync_ns: int = 50 * MILLISECOND
    on_failure: Literal["refuse", "continue"] = "refuse"


DEFAULTS = JournalOptions()


def sync_to_disk(descriptor: int) -> None:
    """Wait until the file's data is on stable storage; macOS needs F_FULLFSYNC for that, its fsync stops at the drive's cache."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # network file systems do not know it
            os.fsync(descriptor)
    else:
        os.fdatasync(descriptor)


class Journal:
    """A `holdfast.execution.recording.Recorder` on files under `data_dir/journal`; one instance per process, used by one thread.

    holder: names the writer in file names, unique among writers that start in the same millisecond. executor: runs fdatasync.
    lost_events: events that were given up because they could not be written. sync_failures: times that fdatasync failed.
    path: the current file, None before the first flush. trouble: why `flush` could not write the last time, "" when it could; the
    next flush tells whether that is over. Always "" under "continue", which does not mind.

    Under "refuse" what could not be written is held back (up to HELD_BYTES) and tried again by the next flush, so a flush with nothing
    new tells whether the disk works again. Measured: 3.0 to 4.5 us CPU per 3 KB event by batch, 1.8 of it one write(2) (bench/journal.py).
    """

    def __init__(
        self,
        data_dir: Path,
        holder: str,
        clock: Clock,
        executor: Executor,
        options: JournalOptions = DEFAULTS,
        *,
        write: Callable[[int, bytearray], int] = os.write,
        sync: Callable[[int], None] = sync_to_disk,
    ) -> None:
        self._data_dir = data_dir
        self._holder = holder
        self._clock = clock
        self._executor = executor
        self._options = options
        self._os_write = write
        self._os_sync = sync
        self._descriptor = _CLOSED
        self._sequence = 0
        self._size = 0
        self._buffer = bytearray()
        self._mid_line = False  # the file ends within the line that the buffer goes on with
        self._contexts: set[str] = set()
        self._fresh_contexts: list[str] = []  # appended since the last complete flush
        self._timer: Timer | None = None
        self._new_folders: tuple[Path, ...] = ()  # hold names that are not on disk yet
        self._sync_error: OSError | None = None  # set by the executor's thread
        self.path: Path | None = None
        self.trouble = ""
        self.lost_events = 0
        self.sync_failures = 0

    def append(self, event: Event) -> None:
        """Take one event; nothing is written yet."""
        encode_into(event, self._buffer)
        if isinstance(event, Context):
            self._contexts.add(event.digest)
            self._fresh_contexts.append(event.digest)

    def flush(self) -> None:
        """Write what was appended; StorageError under "refuse" when that fails, or when an earlier write could not be synced."""
        if self._buffer or self.trouble:
            try:
                self._write()
            except OSError as error:
                self._write_failed(error)
            else:
                self.trouble = ""
                self._fresh_contexts.clear()
                if self._size >= self._options.rotate_bytes:
                    self._rotate()
        if self._sync_error is not None:
            self._sync_failed(self._sync_error)

    def has_context(self, digest: str) -> bool:
        """Whether the current file holds, or with the next flush will hold, this `Context`."""
        return digest in self._contexts

    def close(self) -> None:
        """Write and sync what is left, and close the file; the executor stays the caller's. Raises as `flush` does, closed all the same."""
        try:
            self.flush()
        finally:
            if self._buffer:
                self._give_up()
                self._buffer.clear()
            if self._descriptor != _CLOSED:
                self._sync_and_close(self._leave_file(), self._take_new_folders())
        if self._sync_error is not None:
            self._sync_failed(self._sync_error)

    def _write(self) -> None:
        if self._descriptor == _CLOSED:
            self._open()
        if self._timer is None:
            self._timer = self._clock.call_later(self._options.sync_ns, self._start_sync)
        buffer = self._buffer
        while (written := self._os_write(self._descriptor, buffer)) < len(buffer):
            self._size += written
            self._mid_line = buffer[written - 1] != _NEWLINE if written else self._mid_line
            del buffer[:written]
        self._size += written
        self._mid_line = False
        buffer.clear()

    def _open(self) -> None:
        folder = self._data_dir / FOLDER
        if not folder.is_dir():
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            self._new_folders = (self._data_dir,)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        while self._descriptor == _CLOSED:
            self._sequence += 1
            self.path = folder / file_name(self._clock.wall_ns(), self._holder, self._sequence)
            with contextlib.suppress(FileExistsError):  # an earlier process of this name in the same millisecond: next number
                self._descriptor = os.open(self.path, flags, 0o600)
        self._size = 0
        self._new_folders += (folder,)

    def _write_failed(self, error: OSError) -> None:
        if self._options.on_failure == "continue" or len(self._buffer) > HELD_BYTES:
            self._give_up()
        if self._options.on_failure == "refuse":
            where = self.path or self._data_dir / FOLDER
            self.trouble = f"the journal {where} cannot be written ({error.strerror}): free space or change --data-dir"
            raise StorageError(self.trouble) from error

    def _give_up(self) -> None:
        """Drop what is held, count it, and make the next line begin on a line of its own."""
        cut_short = self._buffer.startswith(b"\n")  # no event: put there by an earlier failure
        self.lost_events += self._buffer.count(b"\n") - cut_short
        self._buffer.clear()
        if self._mid_line:
            self._buffer += b"\n"
        self._contexts.difference_update(self._fresh_contexts)
        self._fresh_contexts.clear()

    def _rotate(self) -> None:
        descriptor = self._leave_file()
        self._executor.submit(self._sync_and_close, descriptor, self._take_new_folders())

    def _leave_file(self) -> int:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._contexts.clear()
        self._mid_line = False
        descriptor, self._descriptor = self._descriptor, _CLOSED
        return descriptor

    def _start_sync(self) -> None:
        self._timer = None
        try:
            descriptor = os.dup(self._descriptor)  # the sync owns it: a rotation meanwhile closes only its own
        except OSError as error:
            self._sync_error = error
        else:
            self._executor.submit(self._sync_and_close, descriptor, self._take_new_folders())

    def _take_new_folders(self) -> tuple[Path, ...]:
        folders, self._new_folders = self._new_folders, ()
        return folders

    def _sync_and_close(self, descriptor: int, folders: tuple[Path, ...]) -> None:
        try:
            self._os_sync(descriptor)
            for folder in folders:
                sync_folder(folder)
        except OSError as error:
            self._sync_error = error
        finally:
            os.close(descriptor)

    def _sync_failed(self, error: OSError) -> None:
        """Report once: the kernel forgets a failed write-back, so a later sync that succeeds proves nothing about it."""
        self._sync_error = None
        self.sync_failures += 1
        if self._options.on_failure == "refuse":
            raise StorageError(f"the journal in {self._data_dir / FOLDER} may have lost its last writes ({error.strerror})") from error


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on stable storage."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
