"""A hedged request: a second attempt at the same target beside one that has been silent for too long (Dean and Barroso, "The Tail at
Scale", 2013). Whichever answers first serves the call; the other is cancelled and settled."""

from collections.abc import Callable

from msgspec import structs

from holdfast.clock import Timer
from holdfast.gateway.asked import Asked
from holdfast.gateway.gate import Admitted, Denied
from holdfast.gateway.parts import Parts
from holdfast.gateway.target_attempt import TargetAttempt


class Hedge:
    """first: the silent one. second: the other, once it was let through: a limit that has no room for it, a rate that would make it
    wait long, leave the call with the first alone. begin: makes the second attempt."""

    def __init__(self, parts: Parts, first: TargetAttempt, begin: Callable[[Asked, Admitted], TargetAttempt]) -> None:
        after_ns = first.asked.entry.agent.hedge_after_ns
        assert after_ns is not None
        self.first = first
        self.second: TargetAttempt | None = None
        self._parts = parts
        self._begin = begin
        # A copy: the gate knows those that wait by their entry.
        self._asked = structs.replace(first.asked, entry=structs.replace(first.asked.entry))
        self._over = False
        self._timer: Timer | None = parts.clock.call_later(after_ns, self._due)

    def close(self, survivor: TargetAttempt) -> TargetAttempt | None:
        """There will be no second attempt any more; returns the one beside `survivor` that is still under way."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._parts.gate.leave(self._asked.entry)
        return self.second if survivor is self.first else self.first

    def _due(self) -> None:
        self._timer = None
        try:
            self._parts.gate.admit(self._asked.entry, self._asked.destination, self._decided, last=False)
        except Exception as defect:  # noqa: BLE001 - a timer's callback: nobody above would tell the agent
            self.first.attempt_broke(defect)

    def _decided(self, outcome: Admitted | Denied) -> None:
        if isinstance(outcome, Denied):
            return
        if self._over or self.first.withdrawn():
            outcome.cancel()
            return
        try:
            self.second = self._begin(self._asked, outcome)
        except Exception as defect:  # noqa: BLE001 - as above
            self.first.attempt_broke(defect)
