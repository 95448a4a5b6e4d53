"""What the simulated provider served and billed, per model and in total."""

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec import Struct

_CANCELLATIONS_KEPT = 1000

End = Literal["served", "failed", "cut", "cancelled"]


class Tally(Struct):
    """Counts of calls and of billed tokens; calls is served + failed + cut + cancelled + open.

    served: whole answers. failed: error answers and what nobody can use (garbage); they bill nothing. cut: streams that the provider
    broke off. cancelled: the client left first. reasoning_tokens is a part of output_tokens.
    """

    calls: int = 0
    served: int = 0
    failed: int = 0
    cut: int = 0
    cancelled: int = 0
    open: int = 0
    open_streams: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Cancellation(Struct, frozen=True):
    """When the provider noticed that a client had left, on both clocks, to be compared with when it did leave."""

    model: str
    wall_ns: int
    monotonic_ns: int


class Stats(Struct):
    """cancellations: the latest ones, oldest first."""

    total: Tally = msgspec.field(default_factory=Tally)
    models: dict[str, Tally] = {}
    cancellations: list[Cancellation] = []

    def begin(self, model: str) -> "OpenCall":
        """A call has arrived."""
        return OpenCall(model, (self.total, self.models.setdefault(model, Tally())))

    def client_left(self, model: str, wall_ns: int, monotonic_ns: int) -> None:
        self.cancellations.append(Cancellation(model, wall_ns, monotonic_ns))
        del self.cancellations[:-_CANCELLATIONS_KEPT]


class OpenCall:
    """A call without an end yet. ended: hears how it ended."""

    __slots__ = ("_ended", "_streaming", "_tallies", "ended", "model")

    def __init__(self, model: str, tallies: tuple[Tally, Tally]) -> None:
        self.model = model
        self._tallies = tallies
        self._streaming = False
        self._ended = False
        self.ended: Callable[[End], None] | None = None
        for tally in tallies:
            tally.calls += 1
            tally.open += 1

    def stream_begun(self) -> None:
        self._streaming = True
        for tally in self._tallies:
            tally.open_streams += 1

    def end(self, how: End, input_tokens: int = 0, output_tokens: int = 0, reasoning_tokens: int = 0) -> None:
        """The call is over and bills these tokens; only the first end counts."""
        if self._ended:
            return
        self._ended = True
        if self.ended is not None:
            self.ended(how)
        for tally in self._tallies:
            tally.open -= 1
            tally.open_streams -= self._streaming
            setattr(tally, how, getattr(tally, how) + 1)
            tally.input_tokens += input_tokens
            tally.output_tokens += output_tokens
            tally.reasoning_tokens += reasoning_tokens
