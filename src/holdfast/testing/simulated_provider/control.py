"""The paths by which a running provider is steered and asked, from this machine only: `/faults` and `/requests`."""

import ipaddress
from urllib.parse import parse_qs

import msgspec

from holdfast.http.message import Request, Response
from holdfast.testing.simulated_provider.errors import JSON_HEADERS
from holdfast.testing.simulated_provider.faults import Fault, Faults
from holdfast.testing.simulated_provider.requests import Requests

PATHS = frozenset({b"/faults", b"/requests"})


class Control:
    """Answers `GET /faults`, `POST /faults` and `GET /requests?since=N`."""

    def __init__(self, faults: Faults, requests: Requests) -> None:
        self._faults = faults
        self._requests = requests

    def answer(self, request: Request, response: Response) -> None:
        """Answer one request for one of `PATHS`."""
        asked = (request.method, request.path)
        if not ipaddress.ip_address(request.peer).is_loopback or request.header(b"origin") is not None:
            _refuse(response, 403, f"{request.path.decode()} is for programs on this machine: ask through 127.0.0.1")
        elif asked == (b"POST", b"/faults"):
            self._switch(request.body, response)
        elif asked == (b"GET", b"/faults"):
            response.send(200, JSON_HEADERS, msgspec.json.encode(self._faults.names))
        elif asked == (b"GET", b"/requests"):
            self._list(request.query, response)
        else:
            _refuse(response, 405, f"{request.path.decode()} does not know {request.method.decode('latin-1')}")

    def _switch(self, body: bytes, response: Response) -> None:
        try:
            self._faults.switch(msgspec.json.decode(body, type=Fault))
        except (ValueError, msgspec.DecodeError) as error:
            _refuse(response, 400, f'{error}; expected for example {{"model": "sim-ok", "behaviour": "error-503"}}')
            return
        response.send(200, JSON_HEADERS, msgspec.json.encode(self._faults.names))

    def _list(self, query: bytes, response: Response) -> None:
        try:
            since = int(parse_qs(query.decode("ascii")).get("since", ["0"])[-1])
        except ValueError:
            _refuse(response, 400, "since must be the number of a request, such as /requests?since=0")
            return
        response.send(200, JSON_HEADERS, msgspec.json.encode(self._requests.since(since)))


def _refuse(response: Response, status: int, message: str) -> None:
    response.send(status, JSON_HEADERS, msgspec.json.encode({"error": {"message": message}}))
