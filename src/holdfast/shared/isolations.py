"""Circuit breakers that people hold open: a file of the data directory that says which, a counter in memory that says when it changed.

As with the kill switch the file is the truth, replaced on stable storage before the counter moves. Other than there a file that cannot be
read stops nothing: an isolation steers calls away from a target that is in trouble; what must not be called at all is killed.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.errors import StorageError
from holdfast.policy.circuit_breaker import Isolation, Isolations
from holdfast.shared.durable import replace_file
from holdfast.shared.memory import SharedMemory

FILE = "breakers.json"
_COUNTER = "breakers.counter"
_KIND = "isolations 1"
_log = logging.getLogger("holdfast.shared")


class State(Struct, frozen=True, kw_only=True):
    """What the file holds. serial: grows with every change."""

    version: int = 1
    serial: int
    isolated: tuple[Isolation, ...] = ()


_decode = msgspec.json.Decoder(State, strict=True).decode


class SharedIsolations:
    """A `holdfast.execution.circuit.IsolationSwitch` as a gateway sees it. damage: why the file cannot be read, "" when it can; meanwhile
    what was known of it holds on.

    Raises StorageError when the counter cannot be mapped.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._memory = SharedMemory(data_dir / _COUNTER, 8, _KIND)
        self._counter = self._memory.view.cast("Q")
        self._isolations = Isolations()
        self.damage = ""
        self._seen = 0
        self._load()

    def isolations(self) -> Isolations:
        """Those that hold now: one look at the counter."""
        if self._counter[0] != self._seen:
            self._load()
        return self._isolations

    def close(self) -> None:
        self._counter.release()
        self._memory.close()

    def _load(self) -> None:
        self._seen = self._counter[0]  # before the file: a change that comes between is read once more
        try:
            self._isolations = Isolations(read(self._path).isolated)
            self.damage = ""
        except StorageError as error:
            self.damage = str(error)
            _log.error("%s", error)


def change(data_dir: Path, edit: Callable[[Isolations], Isolations], *, anew: bool = False) -> int:
    """Replace what is isolated by what `edit` makes of it, in one step among all processes; returns the serial of the new state.

    It is on stable storage, and every call that is let through from now on is checked against it. anew: take what cannot be read for
    nothing. Raises StorageError, and what `edit` raises: then nothing has changed.
    """
    memory = SharedMemory(data_dir / _COUNTER, 8, _KIND)
    try:
        with memory.locked(0, 8), memory.view.cast("Q") as counter:
            try:
                state = read(data_dir / FILE)
            except StorageError:
                if not anew:
                    raise
                state = State(serial=counter[0])
            changed = State(serial=max(state.serial, counter[0]) + 1, isolated=edit(Isolations(state.isolated)).active)
            content = msgspec.json.format(msgspec.json.encode(changed), indent=1) + b"\n"
            try:
                replace_file(data_dir / FILE, content)
            except OSError as error:
                raise StorageError(f"{data_dir / FILE} cannot be written ({error.strerror}): free space, or check whose it is") from error
            counter[0] = changed.serial
            return changed.serial
    finally:
        memory.close()


def read(path: Path) -> State:
    """What the file holds; a data directory without one has nothing isolated. Raises StorageError."""
    try:
        return _decode(path.read_bytes())
    except FileNotFoundError:
        return State(serial=0)
    except OSError as error:
        raise StorageError(f"the isolated breakers in {path} cannot be read ({error.strerror}); check whose file it is") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageError(f"the file {path} is damaged ({error}); `holdfast breaker reset --all` begins it anew") from None
