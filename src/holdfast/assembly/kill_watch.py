"""A gateway's watch over the kill switch: a change is carried out within moments even where no call comes, and then confirmed."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from holdfast.clock import MILLISECOND, Clock, Timer
from holdfast.policy.kill import Kills
from holdfast.shared.kill_switch import SharedKillSwitch
from holdfast.shared.presence import Gateway, Presence

LOOK_NS = 20 * MILLISECOND


class KillWatch:
    """The kill switch of a gateway, which from now on is known to whoever uses it; looks every LOOK_NS from `start` to `close`.

    All that a gateway does it does in one thread: once a change is confirmed, no call stands between its check and its sending.
    Raises StorageError.
    """

    def __init__(self, data_dir: Path, gateway: Gateway, clock: Clock) -> None:
        self._clock = clock
        self._presence = Presence(data_dir, gateway)  # before the first look: whoever kills after it waits for this gateway
        try:
            self.switch = SharedKillSwitch(data_dir)
        except BaseException:
            self._presence.close()
            raise
        self._kills: Kills | None = None
        self._confirmed = -1
        self._told: Mapping[str, int] = {}
        self._timer: Timer | None = None
        self._carry_out: Callable[[Kills], None]
        if not self.switch.damage:  # there are no calls yet to carry it out for
            self._confirm(self.switch.serial)

    def start(self, carry_out: Callable[[Kills], None]) -> None:
        """`carry_out` hears of the kills that hold now, before this returns, and of every change."""
        self._carry_out = carry_out
        self._look()

    def tell(self, waiting: Mapping[str, int]) -> None:
        """Let those who look at this gateway know how many calls of each agent wait in its admission queue."""
        if waiting != self._told:
            with suppress(OSError):  # tried again at the next time
                self._presence.tell(waiting)
                self._told = waiting

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._presence.close()
        self.switch.close()

    def _look(self) -> None:
        self._timer = self._clock.call_later(LOOK_NS, self._look)
        kills = self.switch.look_closer()
        serial, damage = self.switch.serial, self.switch.damage  # a call may come across the next change while this one is carried out
        if kills is not self._kills:
            self._carry_out(kills)
            self._kills = kills
        if serial != self._confirmed and not damage:
            self._confirm(serial)

    def _confirm(self, serial: int) -> None:
        with suppress(OSError):  # tried again at the next look
            self._presence.confirm(serial)
            self._confirmed = serial
