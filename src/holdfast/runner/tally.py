"""Counts what a run does while its events pass on their way to the journal."""

from holdfast.events import ApiCall, Decision, Error, Event
from holdfast.events.error import DENIED
from holdfast.events.usage import Usage
from holdfast.execution.recording import Recorder


class Tally:
    """Running totals of one run; `around` puts it between a gateway and its journal.

    calls: that the agent made, refused ones included. attempts: at providers. cost: nano-dollars of the attempts whose cost is known;
    unpriced: the number of the others. errors: refusals are counted apart. last_error: the latest of both that reached the agent.
    """

    def __init__(self) -> None:
        self.attempts = 0
        self.cost = 0
        self.unpriced = 0
        self.decisions = 0
        self.refusals = 0
        self.errors = 0
        self.last_error = ""
        self._calls_answered = 0
        self._input = self._output = self._cached = self._reasoning = 0
        self._limits: dict[str, None] = {}

    @property
    def calls(self) -> int:
        return self._calls_answered + self.refusals

    @property
    def usage(self) -> Usage:
        return Usage(input=self._input, output=self._output, cached_input=self._cached, reasoning=self._reasoning)

    @property
    def limits(self) -> tuple[str, ...]:
        """The limits that were reached, in that order."""
        return tuple(self._limits)

    def limit_reached(self, limit: str) -> None:
        self._limits[limit] = None

    def around(self, journal: Recorder) -> Recorder:
        """A recorder that counts and hands on."""
        return _Counting(self, journal)

    def count(self, event: Event) -> None:
        if isinstance(event, ApiCall):
            self._attempt(event)
        elif isinstance(event, Decision):
            self.decisions += 1
        elif isinstance(event, Error):
            self._error(event)

    def _error(self, error: Error) -> None:
        if error.recovery_action in DENIED:
            self.refusals += 1
        elif error.recovery_action != "queued":  # what only had to wait is no failure
            self.errors += 1
        if error.recovery_action in (*DENIED, "none"):
            self.last_error = error.message

    def _attempt(self, call: ApiCall) -> None:
        self.attempts += 1
        self._calls_answered += call.attempt == 1
        if call.cost is None:
            self.unpriced += 1
        else:
            self.cost += call.cost
        if call.usage is not None:
            self._input += call.usage.input
            self._output += call.usage.output
            self._cached += call.usage.cached_input
            self._reasoning += call.usage.reasoning


class _Counting:
    def __init__(self, tally: Tally, journal: Recorder) -> None:
        self._tally = tally
        self._journal = journal
        self.flush = journal.flush
        self.has_context = journal.has_context

    def append(self, event: Event) -> None:
        self._tally.count(event)
        self._journal.append(event)
