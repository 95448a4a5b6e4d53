"""HTTP/1.1 server: listens, makes a connection of each that comes, leaves without failing a request."""

import socket
from functools import partial

from holdfast.clock import Clock
from holdfast.http.connection import ServerProtocol
from holdfast.http.connections import Connections
from holdfast.http.listener import Listener, bind
from holdfast.http.message import Application
from holdfast.http.requests import Relayed, ServerOptions, nothing

__all__ = ["Connections", "Server", "ServerOptions", "ServerProtocol", "serve"]


class Server:
    """A listening server, as `serve` returns it; `host` and `port` are where it listens."""

    def __init__(self, listener: Listener, connections: "Connections", clock: Clock) -> None:
        self.host, self.port = listener.host, listener.port
        self._listener = listener
        self._connections = connections
        self._clock = clock

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._connections.open)

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        return self._connections.answering

    async def retire(self, idle_ns: int) -> None:
        """Leave to a successor on the same socket without failing a request: stop accepting, make every answer its connection's last,
        close connections that stay idle for `idle_ns`. Returns when the last one is gone, which may be never: see `close`."""
        self._listener.stop()
        self._connections.retire(idle_ns)
        await self._listener.arrived()
        await self._connections.emptied()

    async def close(self, drain_ns: int) -> None:
        """Stop accepting, close what is idle, let answers in progress end within `drain_ns`, then cut what is left."""
        self._listener.stop()
        connections = self._connections
        connections.drain()
        cut = self._clock.call_later(drain_ns, connections.cut)
        await self._listener.arrived()
        await connections.emptied()
        cut.cancel()
        connections.stop()


async def serve(
    application: Application,
    host: str,
    port: int,
    options: ServerOptions,
    clock: Clock,
    *,
    sock: socket.socket | None = None,
    relayed: Relayed = nothing,
) -> Server:
    """Listen on `host` and `port` (0: any free one), or on the bound socket `sock`; raises OSError where that is not possible.

    relayed: the paths whose requests the application gets before their bodies are whole.
    """
    sockets = await bind(host, port) if sock is None else [sock]
    connections = Connections(clock, options)
    factory = partial(ServerProtocol, application, options, clock, connections, relayed)
    try:
        listener = Listener(sockets, factory, lambda: len(connections.open) + listener.arriving < options.max_connections, clock)
    except OSError:
        connections.stop()
        for each in sockets:
            each.close()
        raise
    connections.freed = listener.look_again
    return Server(listener, connections, clock)
