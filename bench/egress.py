"""Calls of tools: memory of the worker while 100 MB pass up and down, throughput beside the API's own, and what a small call costs.

`python bench/egress.py [--megabytes N] [--rounds N]`. A real API (`tests/end_to_end/api_program.py`) and a real `holdfast up`, processes of
their own; the same transfers go to the API directly and through the gateway in turn. Medians over the rounds.
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import programs

MB = 1 << 20
PIECE = bytes(MB)
CALLS = 500
API = programs.HERE.parent / "tests" / "end_to_end" / "api_program.py"
CONFIG = "tools:\n  api: {{base_url: 'http://127.0.0.1:{port}', price_per_call: 0.001}}\nlimits: [{{usd: 1000000, per: day}}]\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(programs.machine())
    with api() as port, tempfile.TemporaryDirectory() as folder, programs.up(CONFIG.format(port=port), Path(folder) / "data") as up:
        (worker,) = up.workers
        small(up.port, CALLS)  # connections are open, caches warm
        for name, transfer in (("up, with a length", sized), ("up, chunked", chunked), ("down", down)):
            compare(name, transfer, (port, up.port), worker, options.megabytes, options.rounds)
        before = programs.cpu_ns(worker)
        small(up.port, CALLS)
        print(f"a small call: {(programs.cpu_ns(worker) - before) / CALLS / 1000:.0f} us CPU of the worker")


@contextmanager
def api() -> Iterator[int]:
    with subprocess.Popen([sys.executable, str(API)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def compare(name: str, transfer: Callable[[int, str, int], None], ports: tuple[int, int], worker: int, megabytes: int, rounds: int) -> None:
    direct, through, grown, cpu = [], [], [], []
    for _ in range(rounds):
        direct.append(seconds(lambda: transfer(ports[0], "", megabytes)))
        Path(f"/proc/{worker}/clear_refs").write_text("5")  # the peak begins here
        before, used = field(worker, "VmRSS"), programs.cpu_ns(worker)
        through.append(seconds(lambda: transfer(ports[1], "/tools/api", megabytes)))
        grown.append(field(worker, "VmHWM") - before)
        cpu.append((programs.cpu_ns(worker) - used) / 1e6)
    print(
        f"{megabytes} MB {name}: memory of the worker grows by {max(grown) / 1024:.1f} MB at most; "
        f"{statistics.median(through) / statistics.median(direct):.2f} times as long as directly ({statistics.median(direct):.2f} s), "
        f"{statistics.median(cpu) / megabytes:.2f} ms CPU per MB"
    )


def sized(port: int, prefix: str, megabytes: int) -> None:
    upload(port, prefix, megabytes, {"content-length": str(megabytes * MB)})


def chunked(port: int, prefix: str, megabytes: int) -> None:
    upload(port, prefix, megabytes, {})


def upload(port: int, prefix: str, megabytes: int, headers: dict[str, str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", f"{prefix}/sink", (PIECE for _ in range(megabytes)), headers, encode_chunked=not headers)
    answer = connection.getresponse().read()
    assert b'"size": %d' % (megabytes * MB) in answer, answer
    connection.close()


def down(port: int, prefix: str, megabytes: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("GET", f"{prefix}/bytes/{megabytes * MB}")
    answer, size = connection.getresponse(), 0
    while piece := answer.read(MB):
        size += len(piece)
    assert size == megabytes * MB
    connection.close()


def small(port: int, calls: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for _ in range(calls):
        connection.request("GET", "/tools/api/bytes/100")
        assert len(connection.getresponse().read()) == 100
    connection.close()


def seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def field(pid: int, name: str) -> int:
    return next(int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(name))


if __name__ == "__main__":
    main()
