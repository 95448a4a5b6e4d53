"""The upstream of the benchmarks: answers at once with prepared bytes, streams chunks at a steady pace, notes when a client leaves.

Run as `python bench/upstream.py`; prints its port. A request whose body holds `"stream":true` is streamed `CHUNKS` chunks (or N where it
holds `chunks-N`), one every `CHUNK_S` seconds; one that also holds `hold` gets its head, a chunk and then nothing, and `GET /left` says
when (monotonic ns) its client left. `GET /called` says how many calls came, and with which key the latest did.
"""

import asyncio
import json
import re
import time

CHUNKS = 200
CHUNK_S = 0.02
_STREAMED = re.compile(rb'"stream": ?true')
_CHUNKS = re.compile(rb"chunks-(\d+)")

_MESSAGE = {"role": "assistant", "content": "a" * 700}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": CHUNKS, "total_tokens": 400 + CHUNKS},
    },
    separators=(",", ":"),
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def _event(choices: list[dict[str, object]], **fields: object) -> bytes:
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini", "choices": choices, **fields}
    data = b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNK = _event([{"index": 0, "delta": {"content": " token"}, "finish_reason": None}])
LAST = (
    _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    + _event([], usage={"prompt_tokens": 400, "completion_tokens": CHUNKS, "total_tokens": 400 + CHUNKS})
    + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)


class Upstream(asyncio.Protocol):
    left_ns = 0
    called = 0
    latest_head = b""

    def __init__(self) -> None:
        self._buffer = b""
        self._held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held:
            Upstream.left_ns = time.monotonic_ns()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) < length:
            return
        self._buffer = body[length:]
        self._answer(head, body[:length])

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /left"):
            self._say(b"%d" % Upstream.left_ns)
            return
        if head.startswith(b"GET /called"):
            key = re.search(rb"\nauthorization: Bearer ([^\r]*)", Upstream.latest_head, re.IGNORECASE)
            self._say(json.dumps({"calls": Upstream.called, "key": key[1].decode() if key else ""}).encode())
            return
        Upstream.called += 1
        Upstream.latest_head = head
        if not _STREAMED.search(body):
            self._transport.write(WHOLE)
        else:
            self._transport.write(STREAM_HEAD)
            if b"hold" in body:
                self._held = True
                self._transport.write(CHUNK)
            else:
                chunks = _CHUNKS.search(body)
                asyncio.get_running_loop().call_later(CHUNK_S, self._stream, int(chunks[1]) if chunks else CHUNKS)

    def _say(self, said: bytes) -> None:
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(said), said))

    def _stream(self, left: int) -> None:
        if self._transport.is_closing():
            return
        if left == 0:
            self._transport.write(LAST)
            return
        self._transport.write(CHUNK)
        asyncio.get_running_loop().call_later(CHUNK_S, self._stream, left - 1)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
