"""CPU of the HTTP server and client together, relaying on loopback without any policy: per call, per 100 KB body, per streamed chunk.

`python bench/http_roundtrip.py [--uvloop] [--rounds N] [--profile FILE]`. The relay runs in a process of its own; a raw driver and upstream
stand on either side of it, so that only its user and system time count. Medians over the rounds.
"""

import argparse
import asyncio
import cProfile
import multiprocessing
import os
import platform
import resource
import statistics
import sys
from multiprocessing.connection import Connection

from holdfast.clock import SECOND
from holdfast.errors import UpstreamError
from holdfast.execution.upstream import Exchange, Headers, Origin, Upstream, UpstreamRequest
from holdfast.http.client import Client, ClientOptions
from holdfast.http.message import Request, Response
from holdfast.http.server import ServerOptions, serve
from holdfast.system_clock import SystemClock

CONNECTIONS = 32
CHUNKS = 100
CHUNK_SECONDS = 0.01
CHUNK = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" token"}}]}\n\n'
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
HEADERS = (
    b"host: 127.0.0.1\r\naccept: application/json\r\ncontent-type: application/json\r\nuser-agent: OpenAI/Python 2.0\r\n"
    b"authorization: Bearer sk-0123456789abcdef0123456789abcdef\r\nx-stainless-lang: python\r\nx-stainless-os: Linux\r\n"
)
ANSWER = b'{"choices":[{"message":{"role":"assistant","content":"' + b"a" * 900 + b'"}}],"usage":{"total_tokens":12}}'
ANSWER_MESSAGE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)


def request_message(path: bytes, body_bytes: int) -> bytes:
    return b"POST %b HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n" % (path, HEADERS, body_bytes) + b"b" * body_bytes


class Relayed:
    """One call on its way through the relay."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.exchange: Exchange | None = None
        self.status = 0
        self.headers: Headers = ()
        self.pieces: list[bytes] = []
        self.streams = False

    def response_started(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.streams = (b"content-type", b"text/event-stream") in headers
        if self.streams:
            self.response.start(status, headers)

    def response_data(self, data: bytes) -> None:
        if self.streams:
            self.response.write(data)
        else:
            self.pieces.append(data)

    def response_ended(self) -> None:
        if self.streams:
            self.response.end()
        else:
            self.response.send(self.status, self.headers, b"".join(self.pieces))

    def response_failed(self, error: UpstreamError) -> None:
        self.response.send(502, (), str(error).encode())


def relay_application(upstream: Upstream, origin: Origin):  # type: ignore[no-untyped-def]
    def relay(request: Request, response: Response) -> None:
        relayed = Relayed(response)
        forward = UpstreamRequest(
            origin=origin,
            method=request.method,
            target=request.path,
            headers=request.headers,
            body=request.body,
            connect_timeout_ns=5 * SECOND,
        )
        exchange = upstream.send(forward, relayed)
        response.disconnected = exchange.cancel
        response.pausing = exchange.pause
        response.resuming = exchange.resume

    return relay


async def run_relay(pipe: Connection, upstream_port: int) -> None:
    clock = SystemClock()
    client = Client(ClientOptions(), clock)
    application = relay_application(client, Origin("127.0.0.1", upstream_port, False))
    server = await serve(application, "127.0.0.1", 0, ServerOptions(), clock)
    pipe.send(server.port)
    loop = asyncio.get_running_loop()
    stop = loop.create_future()

    def command() -> None:
        if pipe.recv() == "stop":
            stop.set_result(None)
        else:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send((usage.ru_utime, usage.ru_stime))

    loop.add_reader(pipe.fileno(), command)
    await stop
    await server.close(0)
    await client.close()


def relay_process(pipe: Connection, upstream_port: int, uvloop: bool, profile: str) -> None:
    profiler = cProfile.Profile() if profile else None
    if profiler:
        profiler.enable()
    run(run_relay(pipe, upstream_port), uvloop)
    if profiler:
        profiler.disable()
        profiler.dump_stats(profile)


class UpstreamSide(asyncio.Protocol):
    """Answers each message of a known size; a path of `/stream` gets paced chunks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.missing = 0

    def data_received(self, data: bytes) -> None:
        if not self.missing:
            head, _, rest = data.partition(b"\r\n\r\n")
            self.streams = head.startswith(b"POST /stream")
            length = int(head[head.index(b"content-length: ") + 16 :].split(b"\r\n", 1)[0])
            self.missing = length - len(rest)
        else:
            self.missing -= len(data)
        if self.missing:
            return
        if self.streams:
            self.transport.write(STREAM_HEAD)  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.chunk, CHUNKS)
        else:
            self.transport.write(ANSWER_MESSAGE)  # type: ignore[attr-defined]

    def chunk(self, left: int) -> None:
        if left:
            self.transport.write(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK))  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(CHUNK_SECONDS, self.chunk, left - 1)
        else:
            self.transport.write(b"0\r\n\r\n")  # type: ignore[attr-defined]


async def run_upstream(pipe: Connection) -> None:
    server = await asyncio.get_running_loop().create_server(UpstreamSide, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    loop = asyncio.get_running_loop()
    stop = loop.create_future()
    loop.add_reader(pipe.fileno(), lambda: pipe.recv() and stop.set_result(None))
    await stop
    server.close()


def upstream_process(pipe: Connection, uvloop: bool) -> None:
    run(run_upstream(pipe), uvloop)


class Driver(asyncio.Protocol):
    """Sends `calls` requests one after another; an answer is over at its known size, or at its last chunk."""

    def __init__(self, message: bytes, calls: int, done: asyncio.Future[None]) -> None:
        self.message, self.left, self.done = message, calls, done
        self.seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.message)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.seen = self.seen[-8:] + data
        if not (self.seen.endswith(b'{"total_tokens":12}}') or self.seen.endswith(b"\r\n0\r\n\r\n")):
            return
        self.left -= 1
        if self.left:
            self.transport.write(self.message)  # type: ignore[attr-defined]
        else:
            self.transport.close()
            self.done.set_result(None)


async def drive(port: int, message: bytes, calls: int) -> None:
    loop = asyncio.get_running_loop()
    done = [loop.create_future() for _ in range(CONNECTIONS)]
    for future in done:
        await loop.create_connection(lambda future=future: Driver(message, calls, future), "127.0.0.1", port)
    await asyncio.gather(*done)


def run(main, uvloop: bool) -> None:  # type: ignore[no-untyped-def]
    factory = None
    if uvloop:
        import uvloop as implementation

        factory = implementation.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--uvloop", action="store_true")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--calls", type=int, default=600, help="per connection")
    arguments.add_argument("--profile", default="", help="write a cProfile file of the relay (and distort the figures)")
    options = arguments.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    context = multiprocessing.get_context("spawn")
    upstream_pipe, theirs = context.Pipe()
    upstream = context.Process(target=upstream_process, args=(theirs, options.uvloop), daemon=True)
    upstream.start()
    relay_pipe, theirs = context.Pipe()
    relay = context.Process(target=relay_process, args=(theirs, upstream_pipe.recv(), options.uvloop, options.profile), daemon=True)
    relay.start()
    port = relay_pipe.recv()

    def cpu() -> tuple[float, float]:
        relay_pipe.send("cpu")
        return relay_pipe.recv()

    cases = (
        ("call, 1.9 KB in, 1 KB out", request_message(b"/call", 1900), options.calls, 1),
        ("call, 100 KB in, 1 KB out", request_message(b"/call", 100_000), max(1, options.calls // 10), 1),
        (f"streamed chunk of {len(CHUNK)} bytes", request_message(b"/stream", 1900), 2, CHUNKS),
    )
    for name, message, calls, pieces in cases:
        run(drive(port, message, max(1, calls // 10)), options.uvloop)
        figures = []
        for _ in range(options.rounds):
            before = cpu()
            run(drive(port, message, calls), options.uvloop)
            figures.append([(b - a) * 1e6 / (calls * pieces * CONNECTIONS) for a, b in zip(before, cpu(), strict=True)])
        user, system = (statistics.median(column) for column in zip(*figures, strict=True))
        total = statistics.median(sum(figure) for figure in figures)
        print(f"{name}: {total:.1f} us CPU (user {user:.1f}, system {system:.1f})")
    relay_pipe.send("stop")
    relay.join()
    upstream_pipe.send("stop")
    upstream.join()


if __name__ == "__main__":
    sys.exit(main())
