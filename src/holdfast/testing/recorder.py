"""A record kept in memory, to look at in tests."""

from typing import TypeVar

from holdfast.errors import StorageError
from holdfast.events import (
    ApiCall,
    Context,
    Decision,
    Error,
    Event,
    InteractionStarted,
    LimitMark,
    LimitRefusal,
    RunEnded,
    RunStarted,
)

_Kind = TypeVar("_Kind", bound=Event)


class MemoryRecorder:
    """A `holdfast.execution.recording.Recorder` without files.

    events: what was flushed, oldest first. unflushed: what was appended since. failing: while true, `flush` raises StorageError and
    keeps nothing, as a full disk does under "refuse to run unrecorded".
    """

    def __init__(self, *, failing: bool = False) -> None:
        self.events: list[Event] = []
        self.unflushed: list[Event] = []
        self.failing = failing
        self._contexts: set[str] = set()

    def append(self, event: Event) -> None:
        self.unflushed.append(event)
        if isinstance(event, Context):
            self._contexts.add(event.digest)

    def flush(self) -> None:
        if self.failing:
            lost, self.unflushed = self.unflushed, []
            self._contexts -= {event.digest for event in lost if isinstance(event, Context)}
            raise StorageError("the record cannot be written: this MemoryRecorder was told to fail")
        self.events += self.unflushed
        self.unflushed = []

    def has_context(self, digest: str) -> bool:
        return digest in self._contexts

    def rotate(self) -> None:
        """Forget which contexts were stored, as a journal does when it begins a new file."""
        self._contexts.clear()

    @property
    def decisions(self) -> list[Decision]:
        return self._of(Decision)

    @property
    def api_calls(self) -> list[ApiCall]:
        return self._of(ApiCall)

    @property
    def errors(self) -> list[Error]:
        return self._of(Error)

    @property
    def contexts(self) -> list[Context]:
        return self._of(Context)

    @property
    def interactions(self) -> list[InteractionStarted]:
        return self._of(InteractionStarted)

    @property
    def refusals(self) -> list[LimitRefusal]:
        return self._of(LimitRefusal)

    @property
    def marks(self) -> list[LimitMark]:
        return self._of(LimitMark)

    @property
    def runs(self) -> list[RunStarted | RunEnded]:
        return [event for event in self.events if isinstance(event, RunStarted | RunEnded)]

    def _of(self, kind: type[_Kind]) -> list[_Kind]:
        return [event for event in self.events if isinstance(event, kind)]
