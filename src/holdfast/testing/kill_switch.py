"""A kill switch under a test's hand."""

from holdfast.policy.kill import NONE, Kill, Kills


class MemoryKillSwitch:
    """A `holdfast.execution.kill_switch.KillSwitch` in memory."""

    def __init__(self) -> None:
        self._kills = NONE

    def kills(self) -> Kills:
        return self._kills

    def kill(self, kill: Kill) -> None:
        self._kills = self._kills.with_kill(kill)

    def resume(self) -> None:
        """Lift everything."""
        self._kills = NONE
