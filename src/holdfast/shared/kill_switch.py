"""The kill switch of a data directory: one file that says what is killed, and a counter in memory that says when it changed.

The file is the truth; it is replaced on stable storage before the counter moves. Every gateway looks at the counter at every call and
reads the file again when it has moved. What cannot be read stops everything.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.errors import StorageError
from holdfast.policy.kill import NONE, Kill, Kills
from holdfast.shared.durable import replace_file
from holdfast.shared.memory import SharedMemory

FILE = "kill.json"
_COUNTER = "kill.counter"
_KIND = "kill 1"
_WAY_OUT = "`holdfast resume --everything` begins it anew"

_Identity = tuple[int, int, int] | None


class State(Struct, frozen=True, kw_only=True):
    """What the file holds. serial: grows with every change."""

    version: int = 1
    serial: int
    kills: tuple[Kill, ...] = ()


_decode = msgspec.json.Decoder(State, strict=True).decode


class SharedKillSwitch:
    """A `holdfast.execution.kill_switch.KillSwitch` as a gateway sees it. serial: of the state that `kills` tells.

    Raises StorageError when the counter cannot be mapped. A file that cannot be read is no error: then everything is killed, until it
    can be read again.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._memory = SharedMemory(data_dir / _COUNTER, 8, _KIND)
        self._counter = self._memory.view.cast("Q")
        self._seen = 0
        self._identity: _Identity = None
        self._kills = NONE
        self.serial = 0
        self.damage = ""
        self._load()

    def kills(self) -> Kills:
        """The kills that hold now: one look at the counter."""
        if self._counter[0] != self._seen:
            self._load()
        return self._kills

    def look_closer(self) -> Kills:
        """As `kills`, and look at the file too: it may have been replaced without the counter, or be readable again."""
        if self.damage or self._identity != _identity(self._path):
            self._load()
        return self.kills()

    def close(self) -> None:
        self._counter.release()
        self._memory.close()

    def _load(self) -> None:
        seen = self._counter[0]  # before the file: a change that comes between is read once more
        self._identity = _identity(self._path)
        try:
            state = read(self._path, missing_is_damage=seen > 0 or self.serial > 0)
        except StorageError as error:
            self.damage = str(error)
            self._kills = Kills((Kill(scope="all", reason=self.damage, author="Holdfast"),), unreadable=True)
        else:
            self.damage = ""
            self.serial = state.serial
            self._kills = Kills(state.kills)
        self._seen = seen


def change(data_dir: Path, edit: Callable[[Kills], Kills], *, anew: bool = False) -> int:
    """Replace what is killed by what `edit` makes of it, in one step among all processes; returns the serial of the new state.

    It is on stable storage, and every call that a gateway checks from now on is checked against it. anew: take what cannot be read for
    nothing. Raises StorageError, and what `edit` raises: then nothing has changed.
    """
    memory = SharedMemory(data_dir / _COUNTER, 8, _KIND)
    try:
        with memory.locked(0, 8), memory.view.cast("Q") as counter:
            try:
                state = read(data_dir / FILE, missing_is_damage=counter[0] > 0)
            except StorageError:
                if not anew:
                    raise
                state = State(serial=counter[0])
            changed = State(serial=max(state.serial, counter[0]) + 1, kills=edit(Kills(state.kills)).active)
            _replace(data_dir / FILE, msgspec.json.format(msgspec.json.encode(changed), indent=1) + b"\n")
            counter[0] = changed.serial
            return changed.serial
    finally:
        memory.close()


def now(data_dir: Path) -> State:
    """What is killed, for whoever only looks; raises StorageError when nobody knows."""
    if not (data_dir / _COUNTER).exists():
        return read(data_dir / FILE)
    memory = SharedMemory(data_dir / _COUNTER, 8, _KIND)
    try:
        with memory.view.cast("Q") as counter:
            return read(data_dir / FILE, missing_is_damage=counter[0] > 0)
    finally:
        memory.close()


def read(path: Path, *, missing_is_damage: bool = False) -> State:
    """What the file holds; a data directory without one has nothing killed. Raises StorageError."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        if missing_is_damage:
            raise StorageError(f"the kill switch {path} is gone; {_WAY_OUT}") from None
        return State(serial=0)
    except OSError as error:
        raise StorageError(f"the kill switch {path} cannot be read ({error.strerror}); check whose it is") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageError(f"the kill switch {path} is damaged ({error}); {_WAY_OUT}") from None


def _identity(path: Path) -> _Identity:
    try:
        found = os.stat(path)  # noqa: PTH116 - fifty times a second
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _replace(path: Path, content: bytes) -> None:
    try:
        replace_file(path, content)
    except OSError as error:
        raise StorageError(f"the kill switch {path} cannot be written ({error.strerror}): free space, or check whose it is") from error
