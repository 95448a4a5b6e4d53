"""Memory of one process in place of a file that several map: for a gateway in a test, and for a world that is simulated in one thread."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Memory(Protocol):
    """What the tables of this package lie in: `holdfast.shared.memory.SharedMemory`, or `PrivateMemory`."""

    view: memoryview

    def locked(self, start: int, length: int) -> AbstractContextManager[None]: ...

    def close(self) -> None: ...


class PrivateMemory:
    """`size` bytes, all zero, that nobody else sees."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    @contextmanager
    def locked(self, start: int, length: int) -> Iterator[None]:
        """Nobody else is there to be kept out."""
        yield

    def close(self) -> None:
        self.view.release()
