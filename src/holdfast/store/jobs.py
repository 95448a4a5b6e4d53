"""Jobs on disk: one append-only file of NDJSON per job, locked by whoever works on it.

`jobs/waiting` holds those that want a try, `jobs/telling` those whose webhook has not heard of their end, `jobs/ended` the others. A file
is whole before it has its name, each record is one write(2), a torn last one is dropped. The lock is the lease: the kernel takes it from
a process in the moment in which it dies, which no process id and no clock could tell, and it holds between containers too.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from holdfast.errors import StorageError
from holdfast.policy.job import Job, JobRecord, Submitted
from holdfast.store.journal import sync_folder, sync_to_disk

FOLDER = "jobs"
Stage = Literal["waiting", "telling", "ended"]
STAGES: tuple[Stage, ...] = ("waiting", "telling", "ended")

_KEYS = "keys"
_SUFFIX = ".ndjson"
_BLOCK = 1 << 20

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(JobRecord).decode
_ID_BYTES = frozenset("0123456789abcdef-")
_LONGEST_ID = 36


class Census(Struct, frozen=True):
    """How many jobs there are, ended ones too, and how many bytes they take."""

    jobs: int
    size: int


class Claim:
    """The right to work on a job, held until `release`, or until this process dies. job: as its records say."""

    def __init__(self, files: "JobFiles", stage: Stage, job: Job, descriptor: int, size: int) -> None:
        self.job = job
        self._files = files
        self._stage = stage
        self._descriptor = descriptor
        self._size = size

    def append(self, record: JobRecord) -> None:
        """Write one record; it outlives this process once this returns, and power loss once the job is moved or read. Raises StorageError,
        and the file is as it was before."""
        line = _encode(record) + b"\n"
        try:
            _write(self._descriptor, line)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise self._files.failed(error) from error
        self._size += len(line)
        self.job.take(record)

    def move(self, stage: Stage) -> None:
        """Write everything to stable storage, put the job there, and release it. Raises StorageError."""
        identifier = self.job.submitted.id
        try:
            sync_to_disk(self._descriptor)
            self._files.path(self._stage, identifier).rename(self._files.path(stage, identifier))
        except OSError as error:
            raise self._files.failed(error) from error
        finally:
            self.release()

    def release(self) -> None:
        """Leave the job to others; harmless when that was done."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class JobFiles:
    """The jobs of a data directory. Every method blocks on the disk and may be called from any thread; all raise StorageError."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / FOLDER
        try:
            for folder in (self._folder, *(self._folder / name for name in (*STAGES, _KEYS))):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise self.failed(error) from error

    def path(self, stage: Stage, identifier: str) -> Path:
        """Where the file of a job at this stage lies."""
        return self._folder / stage / (identifier + _SUFFIX)

    def failed(self, error: OSError) -> StorageError:
        """What the disk said, with the way out."""
        return StorageError(f"jobs in {self._folder} cannot be read or written ({error.strerror}): free space, or check whose folder it is")

    def add(self, submitted: Submitted, key: str = "") -> Job:
        """Keep a new job; it is on stable storage when this returns, and nobody sees less than the whole.

        key: fit for a file name; a job that was added with it before, and is still kept, is returned in place of a second one.
        """
        folder = self._folder / "waiting"
        unfinished = folder / f".{submitted.id}"
        try:
            descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                _write(descriptor, _encode(submitted) + b"\n")
                sync_to_disk(descriptor)
            finally:
                os.close(descriptor)
            earlier = self._earlier(unfinished, self._folder / _KEYS / key) if key else None
            if earlier is not None:
                unfinished.unlink()
                return earlier
            unfinished.rename(self.path("waiting", submitted.id))
            sync_folder(folder)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise self.failed(error) from error
        return Job(submitted)

    def _earlier(self, unfinished: Path, known: Path) -> Job | None:
        """The job that has taken this name, which is a second link to its file; None when it was free, and is taken now."""
        try:
            known.hardlink_to(unfinished)
        except FileExistsError:
            pass
        else:
            sync_folder(known.parent)
            return None
        job = _job(known.read_bytes())
        if job is None:
            return None
        # Whoever took the name may have died before the job was in its place: stages are passed in this order, so it is in none of them.
        paths = [self.path(stage, job.submitted.id) for stage in STAGES]
        if not any(path.exists() for path in paths):
            with suppress(FileExistsError):  # it is just being put there
                paths[0].hardlink_to(known)
        return job

    def ids(self, stage: Stage) -> list[str]:
        """The jobs at this stage, the oldest first."""
        try:
            names = os.listdir(self._folder / stage)  # noqa: PTH208 - ten thousand names need not become paths
        except OSError as error:
            raise self.failed(error) from error
        return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))

    def claim(self, stage: Stage, identifier: str) -> Claim | None:
        """The right to work on a job; None when somebody else has it, or it is not at this stage. A torn last record is cut off."""
        path = self.path(stage, identifier)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self.failed(error) from error
        try:
            claim = self._claimed(stage, path, descriptor)
        except OSError as error:
            os.close(descriptor)
            raise self.failed(error) from error
        if claim is None:
            os.close(descriptor)
        return claim

    def _claimed(self, stage: Stage, path: Path, descriptor: int) -> Claim | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.stat()
        except (BlockingIOError, FileNotFoundError):  # held by another, or ended by it before the lock was ours
            return None
        data = _contents(descriptor)
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(descriptor, whole)
        job = _job(data[:whole])
        return None if job is None else Claim(self, stage, job, descriptor, whole)

    def mark(self, identifier: str) -> tuple[str, int] | None:
        """What differs once there is more to read of a job than before; its contents may be long."""
        for stage in STAGES:
            with suppress(OSError):
                return stage, self.path(stage, identifier).stat().st_size
        return None

    def read(self, identifier: str) -> Job | None:
        """A job as it is now, whoever works on it; None when there is none of this id, or not any more."""
        if not 0 < len(identifier) <= _LONGEST_ID or not _ID_BYTES.issuperset(identifier):
            return None
        for stage in (*STAGES, *STAGES):  # twice: it may move on between two looks
            try:
                descriptor = os.open(self.path(stage, identifier), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise self.failed(error) from error
            try:
                job = _job(_contents(descriptor))
                if job is not None and job.answered is not None and stage == "waiting":
                    sync_to_disk(descriptor)  # whoever is told of an end must find it again, come what may
            except OSError as error:
                raise self.failed(error) from error
            finally:
                os.close(descriptor)
            return job
        return None

    def all(self) -> Iterator[Job]:
        """Every job, the newest first."""
        for identifier in sorted({identifier for stage in STAGES for identifier in self.ids(stage)}, reverse=True):
            job = self.read(identifier)
            if job is not None:
                yield job

    def forget(self, identifier: str) -> bool:
        """Remove an ended job; False when there is none of this id."""
        try:
            self.path("ended", identifier).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self.failed(error) from error
        return True

    def census(self, ended_before_ns: int) -> Census:
        """Count the jobs, and remove those that ended before this instant."""
        jobs = size = 0
        try:
            for stage in STAGES:
                with os.scandir(self._folder / stage) as entries:
                    for entry in entries:
                        kept = _look(entry, ended_before_ns, ended=stage == "ended")
                        jobs, size = jobs + (kept >= 0), size + max(kept, 0)
            with os.scandir(self._folder / _KEYS) as entries:
                for entry in entries:
                    if entry.stat(follow_symlinks=False).st_nlink == 1:  # its job is gone
                        Path(entry.path).unlink(missing_ok=True)
        except OSError as error:
            raise self.failed(error) from error
        return Census(jobs, size)


def _look(entry: os.DirEntry[str], ended_before_ns: int, *, ended: bool) -> int:
    """The size of a file that stays, -1 for one that does not: its last record, which is its end, is old; or it never became a job."""
    with suppress(FileNotFoundError):
        stat = entry.stat(follow_symlinks=False)
        if stat.st_mtime_ns >= ended_before_ns or not (ended or entry.name.startswith(".")):
            return stat.st_size
        Path(entry.path).unlink()
    return -1


def _write(descriptor: int, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[os.write(descriptor, left) :]


def _contents(descriptor: int) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while piece := os.pread(descriptor, _BLOCK, at):
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _job(data: bytes) -> Job | None:
    """The job of a file's contents, without a last record that is torn; None for what is no job. Records of newer versions are skipped."""
    job: Job | None = None
    for line in data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]:
        try:
            record = _decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if job is not None:
            job.take(record)
        elif isinstance(record, Submitted):
            job = Job(record)
    return job
