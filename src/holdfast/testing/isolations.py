"""Circuit breakers that a test holds open."""

from holdfast.policy.circuit_breaker import Isolation, Isolations


class MemoryIsolations:
    """A `holdfast.execution.circuit.IsolationSwitch` in memory."""

    def __init__(self) -> None:
        self._isolations = Isolations()

    def isolations(self) -> Isolations:
        return self._isolations

    def isolate(self, isolation: Isolation) -> None:
        self._isolations = self._isolations.with_isolation(isolation)

    def reset(self, name: str) -> None:
        self._isolations = self._isolations.without(name)
