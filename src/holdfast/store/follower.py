"""New events as they are written, over all files of a data directory, rotations and new writers included."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.errors import StorageError
from holdfast.events import UNREADABLE, Context, Event, decode
from holdfast.store.files import JournalFile, journal_files
from holdfast.store.lines import LinesForward, lines_backward
from holdfast.store.reader import Damage


class Follower:
    """Each `poll` returns the events that were written since the one before, and since `__init__` at first; by time within a poll.

    damage: unreadable lines it came across. A line is read once its newline is there.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._files: dict[Path, LinesForward] = {}
        self.damage: list[Damage] = []
        for file in journal_files(data_dir):
            self._files[file.path] = LinesForward(_complete_bytes(file))

    def poll(self) -> list[Event]:
        files = journal_files(self._data_dir)
        gone = self._files.keys() - {file.path for file in files}
        for path in gone:
            del self._files[path]
        events = [timed for file in files for timed in self._new(file)]
        return [event for _, event in sorted(events, key=lambda timed: timed[0])]

    def _new(self, file: JournalFile) -> Iterator[tuple[int, Event]]:
        lines = self._files.setdefault(file.path, LinesForward())
        if file.size <= lines.offset:
            return
        timestamp = file.started_ns
        try:
            descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # deleted since it was listed
            return
        except OSError as error:
            raise StorageError(f"the journal {file.path} cannot be read: {error.strerror}") from error
        try:
            for line in lines.read(descriptor):
                try:
                    event = decode(line.data)
                except UNREADABLE as error:
                    self.damage.append(Damage(file.path, line.offset, str(error)))
                    continue
                if not isinstance(event, Context):
                    timestamp = event.timestamp
                yield timestamp, event
        finally:
            os.close(descriptor)


def follow(follower: Follower, wait: Callable[[], None]) -> Iterator[Event]:
    """New events without end; `wait` is called between polls and ends the iteration by raising."""
    while True:
        yield from follower.poll()
        wait()


def _complete_bytes(file: JournalFile) -> int:
    """Up to where the file holds complete lines."""
    try:
        descriptor = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # gone, or unreadable: the poll will tell
        return file.size
    try:
        last = next(lines_backward(descriptor, file.size), None)
    finally:
        os.close(descriptor)
    return file.size if last is None or last.ended else last.offset
