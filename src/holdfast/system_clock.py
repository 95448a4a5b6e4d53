"""The machine's own time: the one clock that is not a test's."""

import asyncio
import time
from collections.abc import Callable

from holdfast.clock import SECOND, Timer


class SystemClock:
    """The machine's own time; timers run on the running asyncio event loop."""

    monotonic_ns = staticmethod(time.monotonic_ns)  # noqa: TID251 - this is the Clock
    wall_ns = staticmethod(time.time_ns)  # noqa: TID251 - this is the Clock

    def call_later(self, delay_ns: int, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay_ns / SECOND, callback)
