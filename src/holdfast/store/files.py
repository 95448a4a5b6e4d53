"""Journal files of a data directory: their names, which sort by start time, and what the names tell."""

import re
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from holdfast.clock import SECOND, to_iso
from holdfast.errors import StorageError

FOLDER = "journal"
"""Where journals lie inside the data directory."""

_NAME = re.compile(r"(\d{8}T\d{6})\.(\d{3})Z-(.+)-(\d{6,})\.ndjson")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


class JournalFile(Struct, frozen=True):
    """One file as it is now. started_ns: from its name, 0 when the name does not tell. ended_ns: its last write, never before its start."""

    path: Path
    started_ns: int
    ended_ns: int
    size: int


def file_name(started_ns: int, holder: str, sequence: int) -> str:
    """`20261123T031200.123Z-<holder>-000001.ndjson`; characters of `holder` that do not belong in names become `_`."""
    start = to_iso(started_ns).replace("-", "").replace(":", "")
    return f"{start}-{_NOT_IN_NAMES.sub('_', holder)}-{sequence:06d}.ndjson"


def started_ns_of(name: str) -> int:
    """When the file of this name was begun, to the millisecond; 0 for other names."""
    match = _NAME.fullmatch(name)
    if match is None:
        return 0
    try:
        start = datetime.strptime(match[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return 0
    return int(start.timestamp()) * SECOND + int(match[2]) * 1_000_000


def journal_files(data_dir: Path) -> list[JournalFile]:
    """Every journal file under `data_dir` by name, oldest first; empty when there is none. StorageError when the folder is unreadable."""
    folder = data_dir / FOLDER
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".ndjson")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"the journal folder {folder} cannot be read: {error.strerror}") from error
    return [file for path in paths if (file := _stat(path)) is not None]


def _stat(path: Path) -> JournalFile | None:
    try:
        stat = path.stat()
    except FileNotFoundError:  # deleted since it was listed
        return None
    started = started_ns_of(path.name)
    return JournalFile(path, started, max(started, stat.st_mtime_ns), stat.st_size)
