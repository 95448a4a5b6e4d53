"""A raw HTTP driver: calls at a steady rate over kept connections, or streams side by side; latencies count from the scheduled start."""

import asyncio
import time
from dataclasses import dataclass, field

BODY = (
    b'{"model":"gpt-4o-mini","max_tokens":300,%b"messages":[{"role":"system","content":"'
    + b"s" * 500
    + b'"},{"role":"user","content":"'
    + b"u" * 1280
    + b'"}]}'
)


def request(port: int, *, stream: bool = False, note: bytes = b"") -> bytes:
    """A chat completion of 1.9 KB as the SDKs send it."""
    return message(port, BODY % ((b'"stream":true,' if stream else b"") + note))


def message(port: int, body: bytes, *, key: str = "bench", path: str = "/v1/chat/completions", more: str = "") -> bytes:
    """A POST as the SDKs send it. more: further header lines, each with its end."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: application/json\r\ncontent-type: application/json\r\n"
        f"user-agent: OpenAI/Python 3.54.0\r\nx-stainless-lang: python\r\nauthorization: Bearer {key}\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Outcome:
    """latencies in seconds; chunks: of streams, read in all; failed: answers other than 200."""

    latencies: list[float] = field(default_factory=list)
    chunks: int = 0
    failed: int = 0


class Connection(asyncio.Protocol):
    """One kept connection, one call at a time."""

    def __init__(self) -> None:
        self._done: asyncio.Future[bytes] | None = None
        self._buffer = bytearray()
        self._length = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length < 0:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end]).lower()
            at = head.find(b"content-length:")
            self._length = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        ended = len(self._buffer) >= self._length if self._length else self._buffer.endswith(b"0\r\n\r\n")
        if ended and self._done is not None and not self._done.done():
            self._done.set_result(bytes(self._buffer))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("cut"))

    async def call(self, message: bytes) -> bytes:
        self._buffer.clear()
        self._length = -1
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._done

    def close(self) -> None:
        self._transport.abort()


async def connect(port: int) -> Connection:
    return (await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port))[1]


async def steady(port: int, rate: float, seconds: float, connections: int = 32, message: bytes = b"") -> Outcome:
    """`rate` calls per second for `seconds`, each at its scheduled time on the next free connection; `message` by default a short call."""
    outcome = Outcome()
    idle: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(connections):
        idle.put_nowait(await connect(port))
    message = message or request(port)
    begin = time.perf_counter() + 0.05

    async def one(at: float) -> None:
        connection = await idle.get()
        answer = await connection.call(message)
        outcome.latencies.append(time.perf_counter() - at)
        outcome.failed += not answer.startswith(b"HTTP/1.1 200")
        idle.put_nowait(connection)

    tasks: set[asyncio.Task[None]] = set()
    for number in range(int(rate * seconds)):
        at = begin + number / rate
        wait = at - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    while not idle.empty():
        idle.get_nowait().close()
    return outcome


async def saturated(port: int, message: bytes, connections: int, seconds: float) -> Outcome:
    """As many calls as come through in `seconds`, one after the other on each connection."""
    outcome = Outcome()
    until = time.perf_counter() + seconds

    async def one() -> None:
        connection = await connect(port)
        while (began := time.perf_counter()) < until:
            answer = await connection.call(message)
            outcome.latencies.append(time.perf_counter() - began)
            outcome.failed += not answer.startswith(b"HTTP/1.1 200")
        connection.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return outcome


async def streams(port: int, count: int, message: bytes = b"") -> Outcome:
    """`count` streams at once, to their end."""
    outcome = Outcome()
    message = message or request(port, stream=True)

    async def one() -> None:
        connection = await connect(port)
        answer = await connection.call(message)
        outcome.chunks += answer.count(b"data: ")
        outcome.failed += not answer.startswith(b"HTTP/1.1 200")
        connection.close()

    await asyncio.gather(*(one() for _ in range(count)))
    return outcome


class Held(asyncio.Protocol):
    """A stream that has begun and stays open. begun: whether its first event came."""

    def __init__(self, message: bytes) -> None:
        self.begun = False
        self._message = message

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self.begun = self.begun or b"data: " in data


async def hold(port: int, message: bytes, count: int, seconds: float) -> list[Held]:
    """Open `count` streams, 50 at a time, and wait at most `seconds` for all to begin."""
    loop = asyncio.get_running_loop()
    held: list[Held] = []
    until = time.perf_counter() + seconds
    for at in range(0, count, 50):
        opened = [loop.create_connection(lambda: Held(message), "127.0.0.1", port) for _ in range(min(50, count - at))]
        held += [protocol for _, protocol in await asyncio.gather(*opened)]
        while not all(stream.begun for stream in held) and time.perf_counter() < until:
            await asyncio.sleep(0.01)
    return held
