"""An upload on its way out: framed, at the upstream's pace, and attentive to an answer that comes before its end."""

import asyncio
import select
import socket

from holdfast.execution.upstream import BodySource


class Sending:
    """A `BodySink` that writes to a transport. ended: all of it was written.

    An upstream that answers early may close without having read everything. The next write then fails, and with it the connection is
    gone, its answer unread: so every write looks first whether there is something to be read, and lets that be read before.
    """

    def __init__(self, transport: asyncio.Transport, source: BodySource) -> None:
        self.ended = False
        self._transport = transport
        self._source: BodySource | None = source
        self._chunked = source.length is None
        self._waiting: list[bytes] = []
        self._full = False
        connection: socket.socket = transport.get_extra_info("socket")
        self._readable = select.poll()
        self._readable.register(connection.fileno(), select.POLLIN)

    def body_data(self, data: bytes) -> None:
        data = b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
        if self._waiting:
            self._waiting.append(data)
        elif self._readable.poll(0):
            self._waiting.append(data)
            self._flow()
            loop = asyncio.get_running_loop()  # what is to be read is read within two of its turns
            loop.call_soon(loop.call_soon, self._go_on)
        else:
            self._write(data)

    def body_ended(self) -> None:
        end = b"0\r\n\r\n" if self._chunked else b""
        self._source = None
        if self._waiting:
            self._waiting.append(end)
        else:
            self._write(end)
            self.ended = True

    def pause(self) -> None:
        """The transport holds enough."""
        self._full = True
        self._flow()

    def resume(self) -> None:
        self._full = False
        self._flow()

    def stop(self) -> None:
        """The rest is not wanted."""
        source, self._source = self._source, None
        self._waiting.clear()
        if source is not None:
            source.stop()

    def _go_on(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return  # stopped meanwhile
        for data in waiting:
            self._write(data)
        self.ended = self._source is None
        self._flow()

    def _flow(self) -> None:
        if self._source is not None:
            if self._full or self._waiting:
                self._source.pause()
            else:
                self._source.resume()

    def _write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)
