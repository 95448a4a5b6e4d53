"""The API of a tool, for what drives tool egress: `GET /orders/N` and `POST /orders`, with a record of what it was asked.

Run as `python bench/tool_server.py`; prints its port. It is steered and asked like the simulated provider, through `/faults` and
`/requests` (docs/simulated-provider.md); what may be switched on for its one model, `orders`: slow-MS, hang, error-STATUS, cut-before.
"""

import asyncio
import json
from collections.abc import Callable

from holdfast.clock import Clock
from holdfast.http.message import Request, Response
from holdfast.system_clock import SystemClock
from holdfast.testing.simulated_provider import Address
from holdfast.testing.simulated_provider.behaviour import Behaviour
from holdfast.testing.simulated_provider.control import PATHS, Control
from holdfast.testing.simulated_provider.faults import Faults
from holdfast.testing.simulated_provider.requests import Requests
from holdfast.testing.simulated_provider.running import running_until_signalled
from holdfast.testing.simulated_provider.stats import End

MODEL = "orders"
_JSON = ((b"content-type", b"application/json"),)


class ToolServer:
    def __init__(self) -> None:
        self._clock = SystemClock()
        self._faults = Faults()
        self._requests = Requests(self._clock)
        self._control = Control(self._faults, self._requests)

    def application(self, request: Request, response: Response) -> None:
        if request.path in PATHS:
            self._control.answer(request, response)
            return
        ended = self._requests.arrived(request, f"{request.method.decode()} {MODEL}")
        _Order(self._clock, self._faults.behaviour(MODEL), request.path, response, ended)


class _Order:
    """One request, answered when it is time."""

    def __init__(self, clock: Clock, behaviour: Behaviour, path: bytes, response: Response, ended: Callable[[End], None]) -> None:
        self._behaviour = behaviour
        self._path = path
        self._response = response
        self._ended = ended
        self._timer = None if behaviour.ending == "hang" else clock.call_later(behaviour.first_ns, self._answer)
        response.disconnected = self._left

    def _answer(self) -> None:
        behaviour, response = self._behaviour, self._response
        response.disconnected = None
        if behaviour.status:
            self._ended("failed")
            response.send(behaviour.status, _JSON, b'{"error": "the tool fails on purpose"}')
        elif behaviour.ending == "cut":
            self._ended("failed")
            response.abort()
        else:
            self._ended("served")
            response.send(200, _JSON, json.dumps({"order": self._path.decode(), "state": "shipped"}).encode())

    def _left(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended("cancelled")


def announce(address: Address) -> None:
    print(address.port, flush=True)


if __name__ == "__main__":
    asyncio.run(running_until_signalled(ToolServer().application, "127.0.0.1", 0, announce))
