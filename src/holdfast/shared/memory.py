"""A file mapped into memory: processes that map the same file see each other's writes at once, and kill -9 loses none of them.

Power loss does: what such a file holds is worth something until the machine starts again, and is found empty after that.
"""

import ctypes
import fcntl
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path

from holdfast.errors import StorageError

HEADER = 64
"""Bytes before the payload: the digest of kind, size and boot in the first 32, nothing in the others."""


class SharedMemory:
    """`size` bytes of payload in the file `path`, all zero when the file is new or was written before the machine last started.

    kind: what is in it, with the version of its layout, e.g. "kill 1": a file of another kind or size is an error. Its folder is made
    where it is missing, readable by its owner alone. One per file and process: its locks hold between processes only. Raises StorageError.

    lock, unlock: for the whole file, where a microsecond counts (1 us together; `locked` takes 3). They know nothing of ranges that are
    `locked`: use either for the same bytes.
    """

    def __init__(self, path: Path, size: int, kind: str) -> None:
        self.path = path
        self._kind = _full_kind(kind, size)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}; check that its folder belongs to this user") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._map = self._prepared(HEADER + size)
        except OSError as error:
            os.close(self._file)
            raise StorageError(f"{path} cannot be mapped: {error.strerror}; check the disk that it lies on") from error
        except StorageError:
            os.close(self._file)
            raise
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self.view = memoryview(self._map)[HEADER:]
        self.lock: Callable[[], None] = partial(fcntl.flock, self._file, fcntl.LOCK_EX)
        self.unlock: Callable[[], None] = partial(fcntl.flock, self._file, fcntl.LOCK_UN)

    def locked(self, start: int, length: int) -> "Lock":
        """Keep other processes that lock any of these payload bytes out; a process that dies inside lets go. Hold it for microseconds."""
        return Lock(self._file, HEADER + start, length)

    def close(self) -> None:
        """Unmap it; the caller has released every view that it cast from `view`. Does nothing the second time."""
        if self._file >= 0:
            self.view.release()
            self._map.close()
            os.close(self._file)
            self._file = -1

    def _prepared(self, size: int) -> mmap.mmap:
        found = os.fstat(self._file).st_size
        if found not in (0, size):
            raise StorageError(f"{self.path} belongs to another version of Holdfast; stop that one, or remove the file")
        if not found:
            _allocate(self._file, size)
        mapped = mmap.mmap(self._file, size)
        kind, boot = _digest(self._kind), _digest(boot_id())
        if mapped[:16] not in (bytes(16), kind):
            mapped.close()
            raise StorageError(f"{self.path} belongs to another version of Holdfast; stop that one, or remove the file")
        if mapped[16:32] != boot:
            if mapped[16:32] != bytes(16):  # pages of a new file are empty, and need not be touched
                mapped[HEADER:] = bytes(size - HEADER)
            mapped[:32] = kind + boot
        return mapped


class Lock:
    """A lock on a range of a file while its block runs; no generator, whose making would cost as much as the lock."""

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: int, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX, self._length, self._start)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, self._length, self._start)


def is_current(path: Path, size: int, kind: str) -> bool:
    """Whether the file holds what was written to it since the machine last started."""
    with path.open("rb") as file:
        return file.read(32) == _digest(_full_kind(kind, size)) + _digest(boot_id()) and path.stat().st_size == HEADER + size


def boot_id() -> bytes:
    """What tells this start of the machine from all others."""
    if sys.platform == "darwin":
        size = ctypes.c_size_t(64)
        uuid = ctypes.create_string_buffer(64)
        ctypes.CDLL(None).sysctlbyname(b"kern.bootsessionuuid", uuid, ctypes.byref(size), None, 0)
        return uuid.value
    return Path("/proc/sys/kernel/random/boot_id").read_bytes()


def _full_kind(kind: str, size: int) -> bytes:
    return f"holdfast {kind}, {size} bytes".encode()


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _allocate(file: int, size: int) -> None:
    """Take the disk space now: a full disk met later, at a write to the map, would end the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        written = 0
        while written < size:
            written += os.pwrite(file, bytes(min(size - written, 1 << 20)), written)
