"""Accepts connections, as many as there is room for; whoever was accepted is served, also when accepting ends in the same moment.

asyncio's own servers drop a connection that is accepted in the turn of the event loop in which they are closed: measured one call in a
few thousand at the replacement of a worker under load.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence

from holdfast.clock import SECOND, Clock, Timer

_AT_ONCE = 64
"""Connections accepted in one turn: a burst of them must not hold up the calls in progress."""

_RETRY_NS = SECOND
"""How long to wait when the process or the machine has no descriptors or memory left for another connection."""

_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_NO_SUCH_FAMILY = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
_BACKLOG = 1024
_log = logging.getLogger("holdfast.http")


class Listener:
    """Takes connections from listening `sockets` (which become its own) and makes a protocol of each.

    room: whether another one may be taken now; those that may not wait in the kernel's queue until `look_again`.
    """

    def __init__(
        self, sockets: Sequence[socket.socket], factory: Callable[[], asyncio.BaseProtocol], room: Callable[[], bool], clock: Clock
    ) -> None:
        self.host, self.port = sockets[0].getsockname()[:2]
        self._sockets = list(sockets)
        self._factory = factory
        self._room = room
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()
        self._retry: Timer | None = None
        self._reading = False
        for sock in self._sockets:
            sock.setblocking(False)
            sock.listen(_BACKLOG)
        self._read()

    @property
    def arriving(self) -> int:
        """Connections that were accepted and are not connected to their protocol yet."""
        return len(self._arriving)

    def look_again(self) -> None:
        """There may be room now."""
        if not self._reading and self._sockets and self._retry is None and self._room():
            self._read()

    def stop(self) -> None:
        """Accept nothing more; other processes that hold the same sockets go on."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def arrived(self) -> None:
        """Returns when everything accepted is connected to its protocol."""
        while self._arriving:
            await asyncio.wait(self._arriving)

    def _read(self) -> None:
        self._reading = True
        for sock in self._sockets:
            self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            for sock in self._sockets:
                self._loop.remove_reader(sock.fileno())

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            if not self._room():
                self._pause()
                return
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                _log.error("no more connections for a second: %s", error.strerror)
                self._pause()
                self._retry = self._clock.call_later(_RETRY_NS, self._again)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._arriving.add(task)
            task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[None]) -> None:
        self._arriving.discard(task)
        self.look_again()

    def _again(self) -> None:
        self._retry = None
        self.look_again()

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:  # it is gone already
            connection.close()


async def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`; raises OSError where that is not possible."""
    found = await asyncio.get_running_loop().getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            failure = error
            continue
        sockets.append(sock)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
        except OSError as error:
            failure = error
            sockets.remove(sock)
            sock.close()
    if failure is not None and (not sockets or failure.errno not in _NO_SUCH_FAMILY):
        for sock in sockets:
            sock.close()
        raise failure
    return sockets
