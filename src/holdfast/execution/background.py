"""Work that blocks, beside the event loop."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from holdfast.errors import StorageError

T = TypeVar("T")


class Background(Protocol):
    """Runs `work` in another thread, then `done` in the caller's with what it returned, or with the StorageError that it raised."""

    def __call__(self, work: Callable[[], T], done: Callable[[T | StorageError], None]) -> None: ...
