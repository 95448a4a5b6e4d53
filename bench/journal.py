"""What an event costs: encoding and write(2) per 3 KB decision, then reading back. Run: python bench/journal.py"""

import os
import platform
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter, process_time

import msgspec
from msgspec import Raw

from holdfast.events import Decision, encode_into
from holdfast.events.ids import uuid7
from holdfast.events.usage import Usage
from holdfast.store.journal import Journal
from holdfast.store.reader import DecisionFilter, JournalReader
from holdfast.testing import FakeClock

EVENTS = 20_000
ROUNDS = 7
BATCHES = (1, 3, 10)


def main() -> None:
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {EVENTS} events per round, median of {ROUNDS}")
    events = [_decision(number) for number in range(EVENTS)]
    buffer = bytearray()
    encode_into(events[0], buffer)
    print(f"one event: {len(buffer)} bytes")
    runs: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    kernel: list[float] = []
    for _ in range(ROUNDS):
        kernel.append(_write_alone(bytes(buffer)))
        for batch in BATCHES:  # alternating, so that a busy machine disturbs all alike
            with TemporaryDirectory() as folder:
                runs[batch].append(_write(Path(folder), events, batch))
    print(f"write(2) alone, the same bytes: {median(kernel):.2f} us CPU per event")
    for batch, times in runs.items():
        print(f"append + flush, {batch:>2} events per write(2): {median(times):.2f} us CPU per event")
    with TemporaryDirectory() as folder:
        _write(Path(folder), events, 10)
        reader = JournalReader(Path(folder))
        _report("newest 50 decisions", reader.decisions)
        _report(f"all {EVENTS} decisions of another agent", lambda: reader.decisions(DecisionFilter(agent="nobody")))
        _report("one decision by identifier", lambda: reader.find_decisions(events[EVENTS // 2].decision_id))
        _report("one interaction", lambda: reader.interaction(events[EVENTS // 2].interaction))


def _write(folder: Path, events: list[Decision], batch: int) -> float:
    """CPU microseconds per event, fdatasync left out: the clock stands still, so only close syncs."""
    with ThreadPoolExecutor(1) as executor:
        journal = Journal(folder, "bench", FakeClock(), executor, sync=lambda descriptor: None)
        began = process_time()
        for start in range(0, len(events), batch):
            for event in events[start : start + batch]:
                journal.append(event)
            journal.flush()
        used = process_time() - began
        journal.close()
    return used / len(events) * 1e6


def _write_alone(line: bytes) -> float:
    with TemporaryFile(buffering=0) as file:
        descriptor = file.fileno()
        began = process_time()
        for _ in range(EVENTS):
            os.write(descriptor, line)
        return (process_time() - began) / EVENTS * 1e6


def _report(what: str, work: Callable[[], object]) -> None:
    times = []
    for _ in range(ROUNDS):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    print(f"{what}: {median(times) * 1e3:.1f} ms")


def _decision(number: int) -> Decision:
    now = FakeClock().wall_ns() + number * 1_000_000
    said = [{"role": "user", "content": "Where is my order?\n" * 60}, {"role": "tool", "tool_call_id": "c1", "content": "parcel " * 90}]
    return Decision(
        decision_id=uuid7(now, number),
        timestamp=now,
        agent="support",
        release="v2.3.1",
        run="run-1",
        user_id=f"user-{number % 500}",
        interaction=uuid7(now - number % 8 * 1_000_000, 1),
        model="gpt-5.1",
        served_by="openai/gpt-5.1",
        format="openai-chat",
        input_messages=Raw(msgspec.json.encode(said)),
        answer="It arrives tomorrow. " * 15,
        reasoning_chain="The parcel left the depot. " * 15,
        chosen_action="reply",
        usage=Usage(400, 60, 200),
        cost=1_234_500,
        cost_source="provider",
        latency_ns=900_000_000,
    )


if __name__ == "__main__":
    sys.exit(main())
