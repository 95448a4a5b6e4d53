"""The interface to the record: events are appended, then handed to the operating system before an answer's last byte goes out."""

from typing import Protocol

from holdfast.events import Event


class Recorder(Protocol):
    """`holdfast.store.journal` implements it on files, `holdfast.testing` in memory."""

    def append(self, event: Event) -> None:
        """Take one event; nothing is written yet."""

    def flush(self) -> None:
        """Write what was appended. Raises StorageError when it cannot be written and calls must not go on unrecorded."""

    def has_context(self, digest: str) -> bool:
        """Whether the current file already holds this `Context`; asked before appending one."""
