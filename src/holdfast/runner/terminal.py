"""The controlling terminal, lent to the agent while it runs in the foreground and taken back when it stops or ends."""

import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Terminal:
    """The terminal that this process was started from; every method does nothing where there is none.

    Holdfast acts as a shell does for its jobs: the agent's process group becomes the terminal's foreground group, so Ctrl-C, Ctrl-Z
    and the size of the window reach the agent directly and it may read the keyboard.
    """

    def __init__(self) -> None:
        try:
            self._fd: int | None = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            self._fd = None  # a service, a container, CI: nothing to lend
        self._borrower: int | None = None
        self._modes: list[Any] = []

    @property
    def exists(self) -> bool:
        return self._fd is not None

    @property
    def interactive(self) -> bool:
        """Whether the agent both reads from and writes to it. In a pipeline (`agent | less`) somebody else may need the keyboard."""
        return self.exists and os.isatty(0) and os.isatty(1)

    @property
    def lent(self) -> bool:
        return self._borrower is not None

    def lend(self, group: int) -> bool:
        """Put a process group into the foreground if this process is there itself; whether the group is there now."""
        if self._fd is None or self._borrower is not None:
            return self._borrower == group
        with _unstoppable(), suppress(OSError, termios.error):  # the terminal may have been closed meanwhile
            if os.tcgetpgrp(self._fd) == os.getpgrp():
                self._modes = termios.tcgetattr(self._fd)
                os.tcsetpgrp(self._fd, group)
                self._borrower = group
        return self._borrower == group

    def take_back(self, *, restore_modes: bool = False) -> None:
        """Return to the foreground after `lend`. restore_modes: as they were then, for an agent that could not do so itself."""
        if self._fd is None or self._borrower is None:
            return
        self._borrower = None
        with _unstoppable(), suppress(OSError, termios.error):  # a closed terminal needs nothing
            os.tcsetpgrp(self._fd, os.getpgrp())
            if restore_modes:
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._modes)

    def close(self) -> None:
        self.take_back()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@contextmanager
def _unstoppable() -> Iterator[None]:
    """A background process that changes its terminal is stopped by SIGTTOU unless it blocks the signal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
