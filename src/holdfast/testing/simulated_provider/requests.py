"""The provider's own record of what it was asked, and how each request ended: proof of what was done once, twice or never."""

from collections import deque
from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from holdfast.clock import Clock
from holdfast.http.message import Request
from holdfast.testing.simulated_provider.stats import End

ID_HEADER = b"x-sim-id"
"""Whatever a client sends in it stands in the record; gateways pass it on."""

KEPT = 20_000
_MAX_TEXT = 256


class Noted(Struct):
    """One request. number: from 1, in order of arrival. ended_ns: 0 while it is open; both instants are wall-clock nanoseconds."""

    number: int
    id: str
    path: str
    model: str
    key: str
    began_ns: int
    ended_ns: int = 0
    end: End | Literal["open"] = "open"


class Page(Struct):
    """next: the `since` with which to ask on; it stands before the first request that is still open, so that its end will be seen.
    lost: requests after `since` that are no longer kept."""

    requests: list[Noted]
    next: int
    lost: int


class Requests:
    """The latest `KEPT` requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: deque[Noted] = deque(maxlen=KEPT)
        self._count = 0

    def arrived(self, request: Request, model: str) -> Callable[[End], None]:
        """Note a request; returns what is to be told how it ended."""
        self._count += 1
        noted = Noted(
            number=self._count,
            id=_text(request.header(ID_HEADER)),
            path=_text(request.path),
            model=model[:_MAX_TEXT],
            key=_text(request.header(b"idempotency-key")),
            began_ns=self._clock.wall_ns(),
        )
        self._kept.append(noted)

        def ended(how: End) -> None:
            noted.end, noted.ended_ns = how, self._clock.wall_ns()

        return ended

    def since(self, number: int) -> Page:
        """Those after `number`, oldest first."""
        found = [noted for noted in self._kept if noted.number > number]
        first = self._count - len(self._kept) + 1
        unfinished = next((noted.number - 1 for noted in found if noted.end == "open"), self._count)
        return Page(requests=found, next=unfinished, lost=max(0, first - 1 - max(number, 0)))


def _text(value: bytes | None) -> str:
    return "" if value is None else value[:_MAX_TEXT].decode("latin-1")
