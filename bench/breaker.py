"""Circuit breakers: what they add to a call, and how soon a breaker that one process opens is open to another.

`python bench/breaker.py [--rounds N]`. The cost: look, enter and the end of a successful call through three closed breakers (provider,
model, key) in the memory that workers share; the median of seven series, alone and while another process does the same. The propagation: a
second process asks in a loop, as a worker does at every call; counted from before the failure that opens the breaker is reported until
the other process is first kept away. Both read this machine's CLOCK_MONOTONIC.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import median

from holdfast.execution.attempt import AttemptResult
from holdfast.execution.breakers import Breakers, Guarded, Passage
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.shared.breaker_state import BreakerState
from holdfast.system_clock import SystemClock
from holdfast.testing.recorder import MemoryRecorder

CALLS = 20_000
TARGET = ("openai/gpt-5.1", "openai", "sk-bench")
_SUCCESS = AttemptResult(status=200)
_FAILURE = AttemptResult(status=500)
_LATER = 1 << 62


class Worker:
    """The breakers of one process on a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.clock = SystemClock()
        self.state = BreakerState(data_dir)
        self.breakers = Breakers(self.state.table, self.state.isolations, self.clock, MemoryRecorder(), lambda: 0.5)

    def guarded(self, options: BreakerOptions) -> Guarded:
        return self.breakers.of(*TARGET, options)

    def call(self, guarded: Guarded, result: AttemptResult = _SUCCESS) -> bool:
        """One call as the gate makes it; False when it was kept away."""
        if self.breakers.look(guarded) is not None:
            return False
        passage = self.breakers.enter(guarded, _LATER)
        if not isinstance(passage, Passage):
            return False
        self.breakers.ended(passage, result, _LATER)
        return True


def cost_us(worker: Worker) -> float:
    guarded = worker.guarded(BreakerOptions())
    return median(timeit.repeat(lambda: worker.call(guarded), number=CALLS, repeat=7)) / CALLS * 1e6


def watch(data_dir: Path) -> None:
    """The other process: a line at every change between let through and kept away, with the instant."""
    worker = Worker(data_dir)
    guarded = worker.guarded(BreakerOptions(minimum_calls=1))
    print("ready", flush=True)
    for _ in sys.stdin:
        while worker.breakers.look(guarded) is None:
            pass
        print(time.monotonic_ns(), flush=True)


def hammer(data_dir: Path) -> None:
    worker = Worker(data_dir)
    guarded = worker.guarded(BreakerOptions())
    print("ready", flush=True)
    while True:
        worker.call(guarded)


def start(role: str, data_dir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--role", role, "--data-dir", str(data_dir)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def propagation_us(data_dir: Path, rounds: int) -> list[float]:
    other = start("watch", data_dir)
    assert other.stdin is not None and other.stdout is not None
    worker = Worker(data_dir)
    guarded = worker.guarded(BreakerOptions(minimum_calls=1))
    found: list[float] = []
    for _ in range(rounds):
        worker.state.table.reset(TARGET[0], time.monotonic_ns(), time.time_ns())
        other.stdin.write("look\n")
        other.stdin.flush()
        time.sleep(0.005)
        began = time.monotonic_ns()
        worker.call(guarded, _FAILURE)
        found.append((int(other.stdout.readline()) - began) / 1000)
    other.stdin.close()
    other.wait()
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--role", choices=("watch", "hammer"), help=argparse.SUPPRESS)
    parser.add_argument("--data-dir", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role is not None:
        (watch if asked.role == "watch" else hammer)(asked.data_dir)
        return
    with tempfile.TemporaryDirectory() as folder:
        alone = cost_us(Worker(Path(folder)))
        neighbour = start("hammer", Path(folder))
        together = cost_us(Worker(Path(folder)))
        neighbour.kill()
        neighbour.communicate()
        print(f"cost of a call on the closed path: {alone:.2f} us alone, {together:.2f} us while another process calls without pause")
    with tempfile.TemporaryDirectory() as folder:
        times = propagation_us(Path(folder), asked.rounds)
        print(
            f"from a failure that opens a breaker to another process that is kept away, {len(times)} rounds: "
            f"median {median(times):.0f} us, p99 {times[int(len(times) * 0.99)]:.0f} us, longest {times[-1]:.0f} us"
        )
        if times[-1] > 100_000:
            raise SystemExit("breaker: an open breaker took longer than 100 ms to be seen by another process")


if __name__ == "__main__":
    main()
