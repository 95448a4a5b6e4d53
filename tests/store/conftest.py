"""A journal under the test's hand: no thread, no real time, faults on demand."""

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from holdfast.events import Decision
from holdfast.events.ids import uuid7
from holdfast.store.journal import Journal, JournalOptions
from holdfast.testing import FakeClock


class InlineExecutor(Executor):
    """Runs what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Disk:
    """The write function of a journal: `room` bytes fit, then every write fails; None is endless."""

    def __init__(self) -> None:
        self.room: int | None = None

    def write(self, descriptor: int, data: bytearray) -> int:
        if self.room is None:
            return os.write(descriptor, data)
        if self.room == 0:
            raise OSError(28, "No space left on device")
        written = os.write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def new_journal(tmp_path: Path, clock: FakeClock, disk: Disk) -> Callable[..., Journal]:
    def new(holder: str = "w", data_dir: Path = tmp_path, **options: Any) -> Journal:
        return Journal(data_dir, holder, clock, InlineExecutor(), JournalOptions(**options), write=disk.write)

    return new


@pytest.fixture
def decision(clock: FakeClock) -> Callable[..., Decision]:
    """Decisions that differ in time and identifier from call to call; any field can be given."""
    made = 0

    def new(**fields: Any) -> Decision:
        nonlocal made
        made += 1
        timestamp = fields.pop("timestamp", clock.wall_ns() + made * 1_000_000)
        defaults = {
            "decision_id": uuid7(timestamp, made << 62 | made),
            "agent": "support",
            "release": "v1",
            "interaction": "chat-1",
            "model": "gpt-5.1",
            "format": "openai-chat",
            "chosen_action": "reply",
        }
        for name in ("input_messages", "input_params", "tool_calls"):
            if isinstance(fields.get(name), bytes):
                fields[name] = Raw(fields[name])
        return Decision(**(defaults | {"timestamp": timestamp} | fields))

    return new
