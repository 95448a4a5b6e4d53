"""The kill switch under load: 500 calls/s on 4 workers with 200 open streams, `holdfast kill`, then `holdfast resume`.

`python bench/kill.py [--rounds N]`. A call counts as late when it began (the driver's clock) after the command had returned and before
`resume` was started, and the provider received it or it was answered with 200: there must be none. What the provider received in that
time of calls that had begun before is named too. All clocks are this machine's CLOCK_MONOTONIC. Streams are cut in the formats of
Chat Completions, Responses and Messages; each must end with the format's error event and a clean end of the body. The last round drains:
its streams must end as if nothing had happened.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import load
import programs

RATE, CONNECTIONS = 500, 64
STREAMS, WORKERS = 200, 4
BEFORE_S, STOPPED_S, AFTER_S = 1.0, 1.0, 0.5
STREAM_PATIENCE_S = 30.0
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}
FORMATS = ("chat", "chat", "responses", "messages")
MARKERS = {"chat": b"data: [DONE]\n\n", "responses": b"event: response.completed\n", "messages": b"event: message_stop\n"}
"""How a stream of each format ends when nothing went wrong."""

_CONFIG = """\
providers:
  openai: {{kind: openai, base_url: "http://127.0.0.1:{port}/v1", api_key: env:BENCH_KEY, prices: {prices}}}
  anthropic: {{kind: anthropic, base_url: "http://127.0.0.1:{port}", api_key: env:BENCH_KEY, prices: {prices}}}
limits:
  - {{usd: 100000, per: day}}
agents:
  bench: {{key: env:BENCH_AGENT_KEY, limits: [{{calls: 10000000, per: hour}}]}}
  bystander: {{key: env:BENCH_BYSTANDER_KEY}}
"""
_PRICES = '{"*": {input_per_million: 1, output_per_million: 4}}'
_KEYS = {"BENCH_KEY": "sk-real", "BENCH_AGENT_KEY": "bench", "BENCH_BYSTANDER_KEY": "bystander"}
_TIMED = """\
import subprocess, sys, time
began = time.monotonic_ns()
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(began, time.monotonic_ns(), code)
"""
"""Runs a command and notes the times in a process of its own, which no load holds up."""


class Commanded(NamedTuple):
    """A command's start and return, monotonic ns."""

    began: int
    returned: int

    @property
    def ms(self) -> float:
        return (self.returned - self.began) / 1e6


class Call(NamedTuple):
    """sent, answered: monotonic ns. status: 0 for a connection that broke."""

    sent: int
    answered: int
    status: int


class Stream(asyncio.Protocol):
    """One stream from its request to the end of its body or connection."""

    def __init__(self, kind: str, message: bytes) -> None:
        self.kind = kind
        self.received = bytearray()
        self.ended_ns = 0
        self.over = asyncio.get_running_loop().create_future()
        self._message = message

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._message)

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"\r\n0\r\n\r\n"):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.ended_ns = time.monotonic_ns()
            self.over.set_result(None)

    @property
    def begun(self) -> bool:
        return b"data: " in self.received

    def fault(self, cut: bool) -> str:
        """What is wrong with how it ended; "" when nothing is."""
        if not self.received.startswith(b"HTTP/1.1 200"):
            return f"answered with {bytes(self.received[:40])!r}"
        body = _unchunked(bytes(self.received).partition(b"\r\n\r\n")[2])
        if body is None:
            return "the body breaks off"
        if not body.endswith(b"\n\n"):
            return "an event breaks off"
        done = MARKERS[self.kind] in body
        if not cut:
            return "" if done else "no terminal marker"
        data = body[:-2].rpartition(b"\n\n")[2].partition(b"data: ")[2]
        last: Any = json.loads(data) if data.startswith(b"{") else {}
        failed = last.get("error") or last.get("type") in ("error", "response.failed")
        return "ended as if it were complete" if done else "" if failed else f"the last event is no error: {data[:80]!r}"


class Verdict(NamedTuple):
    kill: Commanded
    resume: Commanded
    late: int
    in_flight: int
    in_flight_ms: float
    faults: Counter[str]
    last_stream_ms: float
    open_streams: int
    resumed_ms: float
    answers: Counter[int]
    bystander: int

    @property
    def holds(self) -> bool:
        return not self.late and not self.faults and self.open_streams == STREAMS


def _unchunked(body: bytes) -> bytes | None:
    """A chunked body without its coding; None when it breaks off, or goes on after its end."""
    found = []
    while True:
        size, mark, rest = body.partition(b"\r\n")
        if not mark:
            return None
        length = int(size, 16)
        if length == 0:
            return b"".join(found) if rest == b"\r\n" else None
        if rest[length : length + 2] != b"\r\n":
            return None
        found.append(rest[:length])
        body = rest[length + 2 :]


def _request(port: int, kind: str, model: str, *, stream: bool = False, key: str = "bench", sent: int = 0) -> bytes:
    asked: dict[str, Any] = {"model": model, "stream": stream}
    said = [{"role": "user", "content": "What next? " * 20}]
    if kind == "responses":
        asked |= {"input": said, "max_output_tokens": 1000}
    else:
        asked |= {"messages": said, "max_tokens": 1000}
    if sent:
        asked["user"] = f"sent-{sent}"
    more = "anthropic-version: 2023-06-01\r\n" if kind == "messages" else ""
    return load.message(port, json.dumps(asked).encode(), key=key, path=PATHS[kind], more=more)


async def _command(data: Path, *words: str) -> Commanded:
    command = [sys.executable, "-c", _TIMED, *programs.HOLDFAST, *words, "--data-dir", str(data)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    began, returned, code = map(int, said.split())
    if code:
        raise RuntimeError(f"holdfast {' '.join(words)} ended with {code}")
    return Commanded(began, returned)


class Load:
    """Calls at a steady rate until `stop`, each with the time at which it was sent in its body."""

    def __init__(self, port: int) -> None:
        self.calls: list[Call] = []
        self._port = port
        self._idle: asyncio.LifoQueue[load.Connection] = asyncio.LifoQueue()
        self._stopped = False

    async def run(self) -> None:
        for _ in range(CONNECTIONS):
            self._idle.put_nowait(await load.connect(self._port))
        running: set[asyncio.Task[None]] = set()
        began = time.perf_counter()
        number = 0
        while not self._stopped:
            number += 1
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            task = asyncio.create_task(self._one())
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def stop(self) -> None:
        self._stopped = True

    async def _one(self) -> None:
        connection = await self._idle.get()
        sent = time.monotonic_ns()
        try:
            answer = await asyncio.wait_for(connection.call(_request(self._port, "chat", "sim-ok", sent=sent)), 30)
            status = int(answer[9:12])
        except (OSError, TimeoutError):
            status = 0
            connection.close()
            connection = await load.connect(self._port)
        self.calls.append(Call(sent, time.monotonic_ns(), status))
        self._idle.put_nowait(connection)


async def _round(up: programs.Up, provider: int, data: Path, words: list[str], cut: bool) -> Verdict:
    driven = Load(up.port)
    driving = asyncio.create_task(driven.run())
    streams = await _open_streams(up.port, "sim-stream-600-50" if cut else "sim-stream-80-50")
    await asyncio.sleep(BEFORE_S)
    open_streams = sum(stream.begun and not stream.over.done() for stream in streams)
    kill = await _command(data, "kill", *words, "--cut" if cut else "--drain", "--reason", "drill")
    bystander = await _one_call(up.port, "bystander")
    await asyncio.wait([stream.over for stream in streams], timeout=STREAM_PATIENCE_S)
    await asyncio.sleep(STOPPED_S)
    resume = await _command(data, "resume", *words)
    await asyncio.sleep(AFTER_S)
    driven.stop()
    await driving
    for stream in streams:
        stream.transport.abort()
    arrivals = programs.fetch(provider, "/arrivals")
    late, in_flight, in_flight_ms = _late(kill.returned, resume.began, driven.calls, arrivals)
    answered_again = [call.answered for call in driven.calls if call.sent > kill.returned and call.status == 200]
    return Verdict(
        kill=kill,
        resume=resume,
        late=late,
        in_flight=in_flight,
        in_flight_ms=in_flight_ms,
        faults=Counter(fault for stream in streams if (fault := stream.fault(cut))),
        last_stream_ms=(max(stream.ended_ns for stream in streams) - kill.returned) / 1e6,
        open_streams=open_streams,
        resumed_ms=(min(answered_again, default=0) - resume.began) / 1e6,
        answers=Counter(call.status for call in driven.calls),
        bystander=bystander,
    )


async def _open_streams(port: int, model: str) -> list[Stream]:
    loop = asyncio.get_running_loop()
    streams = []
    for number in range(STREAMS):
        kind = FORMATS[number % len(FORMATS)]
        message = _request(port, kind, model, stream=True)
        streams.append((await loop.create_connection(lambda kind=kind, message=message: Stream(kind, message), "127.0.0.1", port))[1])  # type: ignore[misc]
    until = time.monotonic() + STREAM_PATIENCE_S
    while not all(stream.begun for stream in streams) and time.monotonic() < until:
        await asyncio.sleep(0.01)
    return streams


async def _one_call(port: int, key: str) -> int:
    connection = await load.connect(port)
    answer = await asyncio.wait_for(connection.call(_request(port, "chat", "sim-ok", key=key)), 30)
    connection.close()
    return int(answer[9:12])


def _late(returned: int, resumed: int, calls: list[Call], arrivals: list[list[int]]) -> tuple[int, int, float]:
    """Calls of the driver that began while everything was stopped and got through; calls from before that arrived in that time, and how
    long after the return at most, in ms."""
    begun_late = {call.sent for call in calls if returned < call.sent < resumed and call.status == 200}
    begun_late |= {sent for _, sent in arrivals if returned < sent < resumed}
    before = [arrived for arrived, sent in arrivals if returned < arrived < resumed and 0 < sent <= returned]
    return len(begun_late), len(before), max(((arrived - returned) / 1e6 for arrived in before), default=0.0)


def _report(words: list[str], cut: bool, verdict: Verdict) -> None:
    faults = ", ".join(f"{count} {fault}" for fault, count in verdict.faults.items()) or "all well-formed"
    print(
        f"holdfast kill {' '.join(words)} {'--cut' if cut else '--drain'}: returned after {verdict.kill.ms:.0f} ms\n"
        f"  late calls {verdict.late}; of those begun before, {verdict.in_flight} arrived after the return"
        f" (up to {verdict.in_flight_ms:.1f} ms); answers {dict(verdict.answers)}; another agent meanwhile: {verdict.bystander}\n"
        f"  {verdict.open_streams} open streams: {faults}; the last ended {verdict.last_stream_ms:+.0f} ms after the return\n"
        f"  resume returned after {verdict.resume.ms:.0f} ms, first answer {verdict.resumed_ms:.0f} ms after its start",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    rounds = parser.parse_args().rounds
    print(programs.machine())
    verdicts = []
    with ExitStack() as stack:
        noting = stack.enter_context(programs.process([sys.executable, str(programs.HERE / "noting_provider.py")]))
        assert noting.stdout is not None
        provider = int(noting.stdout.readline())
        data = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "data"
        up = stack.enter_context(programs.up(_CONFIG.format(port=provider, prices=_PRICES), data, WORKERS, _KEYS))
        for number in range(rounds):
            words = ["--all"] if number % 2 == 0 else ["--agent", "bench"]
            cut = number < rounds - 1 or rounds == 1
            verdicts.append(asyncio.run(_round(up, provider, data, words, cut)))
            _report(words, cut, verdicts[-1])
    times = [verdict.kill.ms for verdict in verdicts]
    late = sum(verdict.late for verdict in verdicts)
    faults = sum(verdict.faults.total() for verdict in verdicts)
    print(f"{rounds} rounds: kill returned after {median(times):.0f} ms (at most {max(times):.0f})")
    print(f"late calls {late}, faulty streams {faults} (bound: 0)")
    sys.exit(not all(verdict.holds for verdict in verdicts))


if __name__ == "__main__":
    main()
