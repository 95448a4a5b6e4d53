"""Answers out of the bytes of one upstream connection: llhttp, and the checks and limits that it leaves to its caller. No I/O, no clock."""

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser


class AnswerParser:
    """Reads the answer to one request at a time; what a read brought is found in the attributes after `feed`.

    headed: the head is whole, `status` and `headers` hold it. complete: the last byte was read. framed: the answer marks its own end;
    otherwise the end of the connection is its end. silent: not a byte has come yet. The `on_*` methods are llhttp's callbacks.
    """

    def __init__(self, max_header_bytes: int) -> None:
        self._max_header_bytes = max_header_bytes
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self.expect(b"")

    def expect(self, method: bytes) -> None:
        """Be ready for the answer to a request of this method."""
        self.silent = True
        self.headed = False
        self.framed = False
        self.complete = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._to_head = method == b"HEAD"
        self._body: list[bytes] = []
        self._keep_alive = False
        self._surplus = False
        self._oddity = ""
        self._unproductive = 0  # bytes read since the last piece of an answer came out of them

    def feed(self, data: bytes | memoryview) -> str | None:
        """Read on; what is wrong with the bytes, or None. Never raises."""
        assert self._parser is not None
        self.silent = False
        self._unproductive += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            return "a switch of protocols that was not asked for"
        except HttpParserError as error:
            return self._oddity or str(error)
        if self._unproductive > self._max_header_bytes:
            return f"a head or trailer larger than {self._max_header_bytes} bytes"
        return None

    def take_body(self) -> bytes:
        """The body bytes read since the last time."""
        body, self._body = self._body, []
        return body[0] if len(body) == 1 else b"".join(body)

    def reusable(self) -> bool:
        """Whether the connection may carry another request, after a complete answer."""
        if self._surplus or not self._keep_alive:
            return False
        if self._to_head:
            self._parser = HttpResponseParser(self)  # the old one waits for the body that a length in the head announced
        return True

    def release(self) -> None:
        """Let go of llhttp, which holds on to this object: reference counting then frees both at once."""
        self._parser = None

    def on_message_begin(self) -> None:
        self._surplus = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.headed:
            return  # a trailer
        name = name.lower()
        value = value.rstrip(b" \t")
        self.headers.append((name, value))
        if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
            self.framed = True

    def on_headers_complete(self) -> None:
        parser = self._parser
        assert parser is not None
        if self.complete:
            return  # bytes after the answer: noted when they began
        status = parser.get_status_code()
        version = parser.get_http_version()
        if status < 100 or status == 101 or version not in ("1.1", "1.0"):
            self._oddity = f"status {status} in HTTP/{version}"
            raise ValueError(self._oddity)
        if status < 200:
            self.headers = []
            self.framed = False
            return
        self.headed = True
        self.status = status
        self.complete = self._to_head
        self._keep_alive = parser.should_keep_alive()
        self._unproductive = 0

    def on_body(self, data: bytes) -> None:
        self._unproductive = 0
        if self.complete:
            self._surplus = True
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self.complete = self.headed
