"""The gateway's address: one listening socket per worker, held by the supervisor, so that it outlives every worker."""

import errno
import os
import socket

from holdfast.errors import CannotListen

_BACKLOG = 1024


def listeners(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` listening sockets on one address; raises CannotListen.

    Linux spreads connections over the sockets of one port; elsewhere all workers accept from the same one, which stands here `count` times.
    Connections that nobody has accepted yet stay with the socket when a worker dies: its successor serves them.
    """
    try:
        first = _exclusive(host, port)
        if not _shares_ports():
            return [first] * count
        address = first.getsockname()
        first.close()
        return [_shared(first.family, address) for _ in range(count)]
    except OSError as error:
        raise cannot_listen(host, port, error) from error


def cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    """What is wrong with an address, and what to do."""
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror  # resolvers have words of their own
    advice = "is another Holdfast running? Choose another address." if error.errno == errno.EADDRINUSE else "choose another address."
    return CannotListen(f"cannot listen on {url(host, port)}: {reason}; {advice}")


def url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _exclusive(host: str, port: int) -> socket.socket:
    """A first socket without SO_REUSEPORT finds out whether anybody else listens there, even another Holdfast."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    probe = socket.socket(family, kind, protocol)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(address)
    probe.listen(_BACKLOG)
    return probe


def _shared(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    sock.listen(_BACKLOG)
    return sock


def _shares_ports() -> bool:
    return os.uname().sysname == "Linux"
