"""Requests out of the bytes of one connection: llhttp, and the checks and limits that it leaves to its caller. No I/O, no clock."""

import re
from collections.abc import Callable
from enum import Enum, auto
from typing import NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.http.message import Request
from holdfast.http.upload import MOST_HELD_BYTES, Upload

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))

_RELAYED_METHODS = METHODS | frozenset(
    b"ACL BIND CHECKOUT COPY LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE QUERY REBIND REPORT SEARCH "
    b"SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE".split()
)
"""All that llhttp knows but CONNECT, which is no request, and TRACE, which would show the agent the tool's own secrets."""

_PIPELINED = 100
"""Requests kept from one read; the answer to the last closes the connection, and the client repeats the others (RFC 9112, 9.3.2)."""

_LOOSE_PIECES = 256
"""Pieces of a body kept as they came; more are joined, because a client may send two bytes at a time and each object costs forty."""

_SMALL_BODY = 64 * 1024
"""Bytes up to which a body is not counted: as many as the other buffers of its connection hold anyway."""

_HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+,;=:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"expect"))


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Limits of the server. header_timeout: for a whole head, from its first byte or from the connection's start. body_timeout: for
    a whole body. keep_alive: how long a connection may lie idle between requests, or stand still with unsent bytes after an answer.
    write_buffer: unsent bytes of an answer above which its application hears `pausing`. max_bodies: of all request bodies in memory
    that are larger than 64 KiB, together; a request for which there is no room is answered with 503. max_connections: that are open;
    more wait in the kernel's queue."""

    max_header_bytes: int = 32 * 1024
    max_headers: int = 200
    max_body_bytes: int = 32 * 1024 * 1024
    max_bodies_bytes: int = 512 * 1024 * 1024
    max_connections: int = 8192
    header_timeout_ns: int = 10 * SECOND
    body_timeout_ns: int = 60 * SECOND
    keep_alive_ns: int = 75 * SECOND
    write_buffer_bytes: int = 64 * 1024


Relayed = Callable[[bytes], bool]
"""Tells of a path whether its requests are relayed as they come: with methods of any kind, and a large body piece by piece."""


def nothing(path: bytes) -> bool:
    """A `Relayed` for a server that relays no path."""
    return False


class Bodies:
    """Counts the large request bodies that all connections of a server hold, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self.held = 0
        self._most = most

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more; then they are counted."""
        if self.held + size > self._most:
            return False
        self.held += size
        return True

    def give_back(self, size: int) -> None:
        self.held -= size


class Accepted(Struct, frozen=True):
    """A request to be served. keep_alive: what the client asked for; chunked: whether it understands the chunked coding (HTTP/1.1).
    counted: bytes of its body, or held for its upload at most, that are to be given back to the server's `Bodies` once it is answered."""

    request: Request
    keep_alive: bool
    chunked: bool
    counted: int


class Rejected(Struct, frozen=True):
    """What came is answered with this status, then the connection closes."""

    status: int
    reason: str


class Stage(Enum):
    """Where in the stream the parser stands: between requests, in a head, in a body, or past the last byte that it will read."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()
    DONE = auto()


_BETWEEN, _HEAD, _BODY, _DONE = Stage  # looking a member up in its enum costs 60 ns, twenty times per request


class _Unacceptable(Exception):  # noqa: N818 - never leaves this module: unwinds llhttp's callbacks
    pass


class RequestParser:
    """Turns bytes into `parsed` requests, in their order; the first bad one becomes a `Rejected`, and nothing after it is read.

    Memory is bounded by the options' limits plus one read. The `on_*` methods are llhttp's callbacks.
    """

    def __init__(self, options: ServerOptions, peer: str, bodies: Bodies | None = None, relayed: Relayed = nothing) -> None:
        self.parsed: list[Accepted | Rejected] = []  # at most `_PIPELINED`; a deque would take 600 bytes of every connection
        self.stage = _BETWEEN
        self.expects_continue = False
        self._options = options
        self._max_head_bytes = options.max_header_bytes
        self._peer = peer
        self._relayed = relayed
        self._upload: Upload | None = None
        self._bodies = bodies or Bodies(options.max_bodies_bytes)
        self._counted = 0
        self._uncounted_bytes = min(_SMALL_BODY, options.max_body_bytes)
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._refusal: Rejected | None = None
        self._unproductive = 0  # bytes read since the last piece of a request came out of them
        self._in_hand = 0  # bytes of the latest read
        self._head_at_most = 0  # bytes of the reads that the head came in
        self._known_host: bytes | None = None
        self._reset()

    def feed(self, data: bytes | memoryview) -> None:
        """Read on; never raises, whatever the bytes are."""
        while data and self.stage is not _DONE:
            data = self._read(data)

    def reject(self, rejected: Rejected) -> None:
        """Read nothing more; `rejected` follows the requests that were whole before."""
        if self.stage is not _DONE:  # llhttp complains of bytes behind `connection: close`: those are to be ignored
            self.stage = _DONE
            self._forget_body()
            self.parsed.append(rejected)

    def release(self) -> None:
        """Let go of llhttp, which holds on to this object: reference counting then frees both at once."""
        self.stage = _DONE
        self._parser = None
        self._forget_body()
        for each in self.parsed:
            if isinstance(each, Accepted) and each.counted:
                self._bodies.give_back(each.counted)
        self.parsed.clear()

    def on_message_begin(self) -> None:
        if self.stage is _DONE:
            raise _Unacceptable
        self._reset()
        self._head_at_most = self._in_hand
        self.stage = _HEAD

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.stage is _HEAD:  # after the body: trailers, which nobody here needs
            self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self._head_at_most > self._max_head_bytes:
            self._check_size()
        self._method = parser.get_method()
        if self._method not in METHODS and not self._is_relayed_method():
            self._refuse(405, f"method {self._method.decode()} is not allowed")
        if parser.should_upgrade():
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        if len(self._headers) > self._options.max_headers:
            self._refuse(431, f"more than {self._options.max_headers} headers")
        self._chunked = version == "1.1"
        self._keep_alive = parser.should_keep_alive()
        target = _split(self._target, self._method)
        if target is None:
            self._refuse(400, "malformed request target")
        self._path, self._query = target
        self._check_headers()
        self.stage = _BODY
        self._unproductive = 0
        if self._upload is not None:
            self._accept(b"")

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        if self._upload is not None:
            self._upload.push(data)
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._uncounted_bytes:
            self._count_body()
        self._pieces.append(data)
        if len(self._pieces) == _LOOSE_PIECES:
            self._body += b"".join(self._pieces)
            self._pieces.clear()

    def on_message_complete(self) -> None:
        if self.stage is not _BODY:
            return  # an upgrade: `feed` reads this request again
        if self._upload is None:
            self._accept(self._whole_body())
        else:
            self._finish_upload(self._upload)
        self.stage = _BETWEEN if self._keep_alive else _DONE
        self.expects_continue = False
        self._unproductive = 0

    def _accept(self, body: bytes) -> None:
        request = Request(
            method=self._method,
            path=self._path,
            query=self._query,
            headers=self._headers,
            body=body,
            peer=self._peer,
            upload=self._upload,
        )
        self._keep_alive = self._keep_alive and len(self.parsed) < _PIPELINED - 1
        self.parsed.append(Accepted(request, self._keep_alive, self._chunked, self._counted))
        self._counted = 0

    def _finish_upload(self, upload: Upload) -> None:
        """One that came to its end before anybody knew of it is a body like any other."""
        upload.finish()
        self._upload = None
        latest = self.parsed[-1] if self.parsed else None
        if isinstance(latest, Accepted) and latest.request.upload is upload:
            latest.request.upload, latest.request.body = None, upload.whole()

    def _count_body(self) -> None:
        if self._body_bytes > self._options.max_body_bytes:
            self._refuse(413, f"the body is larger than {self._options.max_body_bytes} bytes")
        if not self._bodies.take(self._body_bytes - self._counted):
            self._refuse(503, "too many large requests at once: send it again in a moment")
        self._counted = self._body_bytes

    def _forget_body(self) -> None:
        self._upload = None
        self._pieces.clear()
        self._body.clear()
        self._bodies.give_back(self._counted)
        self._counted = 0

    def _whole_body(self) -> bytes:
        pieces = self._pieces
        if self._body:
            return bytes(self._body + b"".join(pieces))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _reset(self) -> None:
        self._method = b""
        self._target = b""
        self._path = b""
        self._query = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._upload = None
        self._pieces: list[bytes] = []
        self._body = bytearray()
        self._body_bytes = 0
        self._keep_alive = True
        self._chunked = True

    def _read(self, data: bytes | memoryview) -> bytes:
        """Feed llhttp; returns what is to be read again."""
        parser = self._parser
        assert parser is not None
        self._in_hand = size = len(data)
        self._head_at_most += size
        self._unproductive += size
        try:
            parser.feed_data(data)
        except HttpParserUpgrade as upgrade:
            return self._without_upgrade(parser.get_http_version()) + data[upgrade.args[0] :]
        except HttpParserError as error:
            self.reject(self._refusal or Rejected(400, f"malformed request: {error}"))
        else:
            if self._unproductive > self._max_head_bytes and self.stage is not _BETWEEN:
                self.reject(self._too_large())
        return b""

    def _without_upgrade(self, version: str) -> bytes:
        """Protocols are never switched here, and llhttp would take this request's body for the other protocol: the head once more,
        without its Upgrade header, for a new parser."""
        headers = b"".join(b"%b: %b\r\n" % header for header in self._headers if header[0] != b"upgrade")
        self._parser = HttpRequestParser(self)
        self.stage = _BETWEEN
        return b"%b %b HTTP/%b\r\n%b\r\n" % (self._method, self._target, version.encode(), headers)

    def _check_headers(self) -> None:
        found: dict[bytes, bytes] = {}
        for name, value in self._headers:
            if name in _SINGLE:
                if name in found:
                    self._refuse(400, f"more than one {name.decode()} header")
                found[name] = value
        self._check_host(found.get(b"host"))
        self._check_framing(found.get(b"content-length"), found.get(b"transfer-encoding"))
        expect = found.get(b"expect")
        if expect is not None:
            if expect.lower() != b"100-continue":
                self._refuse(417, "the only expectation met here is 100-continue")
            self.expects_continue = self._chunked

    def _check_size(self) -> None:
        if len(self._target) + sum([len(name) + len(value) + 4 for name, value in self._headers]) > self._max_head_bytes:
            self._refuse(431, f"the head is larger than {self._max_head_bytes} bytes")

    def _check_host(self, host: bytes | None) -> None:
        if host == self._known_host and host is not None:
            return
        if host is None:
            if self._chunked:
                self._refuse(400, "no Host header")
        elif _HOST.fullmatch(host) is None:
            self._refuse(400, "malformed Host header")
        self._known_host = host

    def _check_framing(self, length: bytes | None, coding: bytes | None) -> None:
        if coding is None:
            size = 0 if length is None else int(length)
            if size > self._uncounted_bytes:
                if self._relayed(self._path):
                    self._begin_upload(size)
                elif size > self._options.max_body_bytes:
                    self._refuse(413, f"the body is larger than {self._options.max_body_bytes} bytes")
            return
        if not self._chunked:
            self._refuse(400, "Transfer-Encoding in an HTTP/1.0 request")
        if coding.lower() != b"chunked":
            self._refuse(501, "the only transfer coding known here is chunked")
        if self._relayed(self._path):
            self._begin_upload(None)

    def _begin_upload(self, length: int | None) -> None:
        if not self._bodies.take(MOST_HELD_BYTES):
            self._refuse(503, "too many large requests at once: send it again in a moment")
        self._counted = MOST_HELD_BYTES
        self._upload = Upload(length)

    def _is_relayed_method(self) -> bool:
        target = _split(self._target, self._method)
        return self._method in _RELAYED_METHODS and target is not None and self._relayed(target[0])

    def _refuse(self, status: int, reason: str) -> NoReturn:
        self._refusal = Rejected(status, reason)
        raise _Unacceptable

    def _too_large(self) -> Rejected:
        if self.stage is _HEAD:
            return Rejected(431, f"the head is larger than {self._max_head_bytes} bytes")
        return Rejected(400, "chunk extensions or trailers without end")


def _split(target: bytes, method: bytes) -> tuple[bytes, bytes] | None:
    """Path and query of a request target: origin form, absolute form (its authority is dropped), or `*` for OPTIONS; else None."""
    if b"#" in target:
        return None
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return b"*", b""
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            return None
        target = target[absolute.end() :]
    path, _, query = target.partition(b"?")
    return path or b"/", query
