"""The interface to the kill switch: what holds now, asked directly before every attempt.

`holdfast.shared.kill_switch` implements it over all processes of a data directory, `holdfast.testing.kill_switch` in memory.
"""

from typing import Protocol

from holdfast.policy.kill import Kills


class KillSwitch(Protocol):
    def kills(self) -> Kills:
        """The kills that hold now. Reads nothing but memory, save at the first call after a change."""
