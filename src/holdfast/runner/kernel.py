"""What only the kernel can do for a process, through Linux's prctl(2); elsewhere every call says that it did nothing."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36


def deny_inspection() -> bool:
    """Keep processes of the same user out of this one's memory and environment, and keep core dumps from being written.

    Undone by exec, so a child is not affected. Whether it is in force. Source: prctl(2), PR_SET_DUMPABLE.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


@contextmanager
def adopting_orphans() -> Iterator[bool]:
    """Descendants that lose their parent become children of this process instead of init's; whether that is in force.

    Source: prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    adopting = _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield adopting
    finally:
        if adopting:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    arguments = [ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)]
    return bool(ctypes.CDLL(None).prctl(option, *arguments) == 0)
