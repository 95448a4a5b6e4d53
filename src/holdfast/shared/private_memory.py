"""Memory of one process in place of a file that several map: for a gateway in a test, and for a world that is simulated in one thread."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Memory(Protocol):
    """What the tables of this package lie in: `holdfast.shared.memory.SharedMemory`, or `PrivateMemory`."""

    view: memoryview

    lock: Callable[[], None]
    unlock: Callable[[], None]

    def locked(self, start: int, length: int) -> AbstractContextManager[None]: ...

    def close(self) -> None: ...


_NOBODY = nullcontext()


def _nothing() -> None:
    """Nobody else is there to be kept out."""


class PrivateMemory:
    """`size` bytes, all zero, that nobody else sees."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))
        self.lock = self.unlock = _nothing

    def locked(self, start: int, length: int) -> AbstractContextManager[None]:
        """Nobody else is there to be kept out."""
        return _NOBODY

    def close(self) -> None:
        self.view.release()
