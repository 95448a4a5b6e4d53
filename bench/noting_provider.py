"""A simulated provider that notes when each call came: `GET /arrivals` lists (monotonic ns of arrival, `sent-NUMBER` in its `user`).

Run as `python bench/noting_provider.py`; prints its port.
"""

import asyncio
import json
import re
import time

from holdfast.http.message import Request, Response
from holdfast.testing.simulated_provider import Address, SimulatedProvider
from holdfast.testing.simulated_provider.running import running_until_signalled

_SENT = re.compile(rb"sent-(\d+)")


class NotingProvider:
    def __init__(self) -> None:
        self._simulated = SimulatedProvider()
        self._arrivals: list[tuple[int, int]] = []

    def application(self, request: Request, response: Response) -> None:
        if request.path == b"/arrivals":
            response.send(200, ((b"content-type", b"application/json"),), json.dumps(self._arrivals).encode())
            return
        if request.method == b"POST":
            sent = _SENT.search(request.body)
            self._arrivals.append((time.monotonic_ns(), int(sent[1]) if sent else 0))
        self._simulated.application(request, response)


def announce(address: Address) -> None:
    print(address.port, flush=True)


if __name__ == "__main__":
    asyncio.run(running_until_signalled(NotingProvider().application, "127.0.0.1", 0, announce))
