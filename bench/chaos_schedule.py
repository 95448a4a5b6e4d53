"""When each failure of `bench/chaos.py` is switched on and off: every model goes through all of them, in a seeded order of its own."""

import asyncio
import time
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from chaos_traffic import MODELS
from exchange import Lines

FAULTS = (
    *("error-400", "error-401", "error-429", "error-500", "error-503", "error-529", "flaky-50", "fail-1-then-ok", "rate-30"),
    *("refuse", "filter", "filter-3", "context-60"),
    *("slow-1000", "slow-6000", "stall-500", "stall-6000", "slow-tokens-60", "slow-tokens-2500", "hang"),
    *("cut-before", "cut-stream", "end-early", "error-event-0", "error-event", "garbage", "garbage-shape", "garbage-http"),
)
TOOL_FAULTS = ("error-500", "error-503", "slow-500", "hang", "cut-before")
TOOL = "orders"
SERVERS = ("first", "reserve", "tool")
BOTH = 0.4
"""Share of the failures that meet the reserve too."""


class Window(NamedTuple):
    """A failure while it was switched on, wall ns: from before the server heard of it to after it heard of its end."""

    server: str
    model: str
    fault: str
    began_ns: int
    ended_ns: int


@dataclass
class Schedule:
    """windows: what was switched on so far, in order of their ends."""

    lines: dict[str, Lines]
    seed: int
    short: bool
    windows: list[Window] = field(default_factory=list)
    _starts: dict[tuple[str, str], list[Window]] = field(default_factory=lambda: defaultdict(list))

    async def run(self) -> None:
        """Until it is cancelled; ends what is switched on then."""
        await asyncio.gather(*(self._go_through(model, number) for number, model in enumerate([*MODELS, TOOL])))

    async def _go_through(self, model: str, number: int) -> None:
        random = Random(self.seed * 1000 + number)
        on, off = ((1.5, 3.0), (1.0, 2.5)) if self.short else ((3.0, 15.0), (2.0, 8.0))
        faults = list(TOOL_FAULTS if model == TOOL else FAULTS)
        Random(self.seed).shuffle(faults)
        begin = number * len(faults) // len(MODELS)  # each model elsewhere, so that a short time meets all of them
        faults = faults[begin:] + faults[:begin]
        while True:
            for fault in faults:
                servers = ["tool"] if model == TOOL else ["first", "reserve"] if random.random() < BOTH else ["first"]
                await asyncio.sleep(random.uniform(*off))
                await self._hold(servers, model, fault, random.uniform(*on))
            random.shuffle(faults)

    async def _hold(self, servers: list[str], model: str, fault: str, seconds: float) -> None:
        began_ns = time.time_ns()
        try:
            for server in servers:
                await self.lines[server].fetch("/faults", {"model": model, "behaviour": fault})
            await asyncio.sleep(seconds)
        finally:
            for server in servers:
                await self.lines[server].fetch("/faults", {"model": model, "behaviour": None})
                self.windows.append(Window(server, model, fault, began_ns, time.time_ns()))
                self._starts[server, model].append(self.windows[-1])

    def at(self, server: str, model: str, wall_ns: int) -> str:
        """The failure that was switched on at an instant, "" for none."""
        windows = self._starts[server, model]
        found = bisect_right(windows, wall_ns, key=lambda window: window.began_ns) - 1
        return windows[found].fault if found >= 0 and wall_ns <= windows[found].ended_ns else ""
