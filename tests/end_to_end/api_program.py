"""An HTTP API to be called as a tool: `python api_program.py`; it prints its port, and tells at /seen what it was asked.

/bytes/N sends N bytes with their length, /chunks/N in chunks; /sink takes a body and tells its size and hash; /early answers 413 without
reading; /moved, /away redirect; /echo gives the body back in chunks while it comes.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = bytes(range(256)) * 256


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body in one packet: the second of two would wait 40 ms
    seen: list[list[str]] = []

    def answer(self) -> None:
        path, _, number = self.path.partition("?")[0].rpartition("/")
        if self.path != "/seen":
            self.seen.append([self.command, self.path, self.headers.get("x-key", "")])
        handler = getattr(self, f"send_{path[1:] or number}", None)
        if handler is None:
            self.whole(404, b"no such thing, " + self.headers.get("x-key", "").encode())
        else:
            handler(int(number) if number.isdigit() else 0)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PROPFIND = answer  # noqa: N815 - the standard library's names

    def send_seen(self, _: int) -> None:
        self.whole(200, json.dumps(self.seen).encode())

    def send_bytes(self, size: int) -> None:
        self.head(200, {"content-length": str(size)})
        if self.command != "HEAD":
            for at in range(0, size, len(PIECE)):
                self.wfile.write(PIECE[: size - at])

    def send_chunks(self, size: int) -> None:
        self.head(200, {"transfer-encoding": "chunked"})
        for at in range(0, size, len(PIECE)):
            self.chunk(PIECE[: size - at])
        self.wfile.write(b"0\r\n\r\n")

    def send_sink(self, _: int) -> None:
        size, digest = 0, hashlib.sha256()
        for piece in self.body():
            size += len(piece)
            digest.update(piece)
        self.whole(200, json.dumps({"size": size, "sha256": digest.hexdigest(), "chunked": "transfer-encoding" in self.headers}).encode())

    def send_echo(self, _: int) -> None:
        self.head(200, {"transfer-encoding": "chunked"})
        for piece in self.body():
            self.chunk(piece)
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def send_early(self, _: int) -> None:
        self.close_connection = True
        self.whole(413, b"too much for me", {"connection": "close"})

    def send_moved(self, _: int) -> None:
        list(self.body())
        self.whole(307, b"", {"location": f"http://{self.headers['host']}/bytes/10"})

    def send_away(self, _: int) -> None:
        self.whole(302, b"", {"location": "http://127.0.0.2:9/elsewhere"})

    def body(self) -> Iterator[bytes]:
        if "content-length" in self.headers:
            left = int(self.headers["content-length"])
            while left:
                piece = self.rfile.read1(min(left, 1 << 16))
                if not piece:
                    raise ConnectionError("cut")
                left -= len(piece)
                yield piece
            return
        while "transfer-encoding" in self.headers and (size := int(self.rfile.readline(), 16)):
            yield self.rfile.read(size)
            self.rfile.readline()
        if "transfer-encoding" in self.headers:
            self.rfile.readline()

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def whole(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.head(status, {"content-length": str(len(body)), **(more or {})})
        self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Whoever left is not worth a word."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"{server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()
