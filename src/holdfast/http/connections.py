"""The open connections of one server: how many there may be, when each must end, what they share."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from holdfast.clock import SECOND, Clock
from holdfast.http.reading import ReadBuffer
from holdfast.http.requests import Bodies, ServerOptions

SWEEP_NS = SECOND // 2
"""How often deadlines are looked at, and so how late they may be noticed: one timer for all connections instead of three per call."""

_FREE_SHARE = 8
"""Of so many connections that may be open, one is kept free by keeping none alive any more: idle ones must not keep new ones out."""


class Connection(Protocol):
    """One of them. `deadline_ns` (monotonic) is when what it waits for must have come."""

    deadline_ns: int

    @property
    def idle(self) -> bool:
        """Whether nothing of a request has come."""

    def close_if_idle(self) -> None: ...

    def cut(self) -> None: ...

    def expire(self) -> None:
        """The deadline has passed."""


class Connections:
    """The open connections of one server, at most `options.max_connections`, and the sweep that ends those whose deadline has passed.

    parting: every answer is its connection's last. idle_ns: how long a connection may lie idle. answering: requests being answered.
    bodies: bytes of large request bodies in memory. freed: told whenever a connection is gone.
    """

    def __init__(self, clock: Clock, options: ServerOptions = ServerOptions()) -> None:  # noqa: B008 - frozen
        self.open: set[Connection] = set()
        self.parting = False
        self.closing = False
        self.idle_ns = options.keep_alive_ns
        self.retiring = False
        self.answering = 0
        self.bodies = Bodies(options.max_bodies_bytes)
        self.buffer = ReadBuffer()
        self.freed: Callable[[], None] = lambda: None
        self._crowd = options.max_connections - max(1, options.max_connections // _FREE_SHARE)
        self._clock = clock
        self._emptied: asyncio.Future[None] | None = None
        self._timer = clock.call_later(SWEEP_NS, self._sweep)

    def add(self, connection: Connection) -> None:
        self.open.add(connection)
        self.parting = self.retiring or len(self.open) > self._crowd

    def remove(self, connection: Connection) -> None:
        self.open.discard(connection)
        self.parting = self.retiring or len(self.open) > self._crowd
        self.freed()
        if self._emptied is not None and not self.open:
            self._emptied.set_result(None)
            self._emptied = None

    def retire(self, idle_ns: int) -> None:
        """Idle connections answer one more request, if it comes within `idle_ns`."""
        self.retiring = self.parting = True
        self.idle_ns = min(self.idle_ns, idle_ns)
        latest_ns = self._clock.monotonic_ns() + idle_ns
        for connection in self.open:
            if connection.idle:
                connection.deadline_ns = min(connection.deadline_ns, latest_ns)

    def drain(self) -> None:
        """Close what is idle; the others close with the end of their answer."""
        self.closing = self.retiring = self.parting = True
        for connection in list(self.open):
            connection.close_if_idle()

    def cut(self) -> None:
        for connection in list(self.open):
            connection.cut()

    async def emptied(self) -> None:
        """Returns when the last connection is gone."""
        if self.open:
            if self._emptied is None:
                self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._emptied)

    def stop(self) -> None:
        self._timer.cancel()

    def _sweep(self) -> None:
        now = self._clock.monotonic_ns()
        for connection in [each for each in self.open if each.deadline_ns <= now]:
            connection.expire()
        self._timer = self._clock.call_later(SWEEP_NS, self._sweep)
