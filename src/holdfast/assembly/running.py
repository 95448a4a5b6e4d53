"""One `holdfast up` per data directory: a lock that ends with its process, and beside it what others may know of that process."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.errors import HoldfastError, StorageError, UsageError
from holdfast.system_clock import SystemClock

_LOCK, _STATE = "up.lock", "up.json"
_TRIES, _PAUSE_S = 5, 0.02
_START_NS = 10 * SECOND
_RELOAD_NS = 120 * SECOND


class UpState(Struct, frozen=True, kw_only=True):
    """What is known of a running `up`. gateway, control: base URLs. config: its file, "" without one. begun, ended: how many reloads did.
    failure: why the last one that ended changed nothing, "" when it did. notes: what its new configuration was accepted with all the same.
    """

    pid: int
    gateway: str
    control: str
    config: str = ""
    begun: int = 0
    ended: int = 0
    failure: str = ""
    notes: tuple[str, ...] = ()


class Claim:
    """Held by `holdfast up` for as long as it runs: no second one may run on the data directory. Raises HoldfastError, StorageError."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the data directory {data_dir} cannot be made: {error.strerror}; name another with --data-dir") from error
        try:
            self._lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(
                f"{data_dir / _LOCK} cannot be opened: {error.strerror}; check that its folder exists and is yours"
            ) from error
        if not any(_locked(self._lock) or pause.wait(_PAUSE_S) for pause in [threading.Event()] * _TRIES):  # a look takes it for an instant
            os.close(self._lock)
            raise HoldfastError(_taken(data_dir))
        self._forget()

    def publish(self, state: UpState) -> None:
        """Let others know; a full disk keeps the last state, which costs nobody a call."""
        target = self._data_dir / _STATE
        fresh = target.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(state))
            fresh.replace(target)

    def release(self) -> None:
        self._forget()
        os.close(self._lock)

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            (self._data_dir / _STATE).unlink(missing_ok=True)


def find(data_dir: Path) -> UpState | None:
    """The `up` that runs on a data directory; None when there is none, or it does not answer yet."""
    return _look(data_dir)[1]


def reload_running(data_dir: Path, wait: Callable[[], None]) -> UpState:
    """Make the `up` of a data directory read its configuration again, and return what became of it; `wait` is called between looks.

    Raises HoldfastError when none runs or it ends meanwhile, UsageError with what is wrong when it keeps its old configuration.
    """
    clock = SystemClock()
    before = _find_soon(data_dir, wait, clock.monotonic_ns() + _START_NS)
    try:
        os.kill(before.pid, signal.SIGHUP)
    except OSError as error:
        raise HoldfastError(f"process {before.pid}, the holdfast up on {data_dir}, cannot be told: {error.strerror}") from error
    until = clock.monotonic_ns() + _RELOAD_NS
    while True:
        now = find(data_dir)
        if now is None or now.pid != before.pid:
            raise HoldfastError(f"process {before.pid}, the holdfast up on {data_dir}, ended while it was to reload")
        if now.ended > before.begun:
            break
        if clock.monotonic_ns() > until:
            raise HoldfastError(
                f"process {before.pid}, the holdfast up on {data_dir}, is still reloading: workers before the last reloads have calls to "
                f"finish; {now.control}/ shows them"
            )
        wait()
    if now.failure:
        raise UsageError(f"not reloaded, the configuration before stays in force:\n{now.failure}")
    return now


def _find_soon(data_dir: Path, wait: Callable[[], None], until_ns: int) -> UpState:
    while True:
        runs, state = _look(data_dir)
        if state is not None:
            return state
        if not runs:
            raise HoldfastError(
                f"no holdfast up runs on the data directory {data_dir}; start one, or name the one that runs by its --data-dir"
            )
        if SystemClock.monotonic_ns() > until_ns:
            raise HoldfastError(f"the holdfast up on the data directory {data_dir} is still starting; ask again once it has")
        wait()


def _look(data_dir: Path) -> tuple[bool, UpState | None]:
    """Whether one runs, and what it says of itself, where it did already."""
    try:
        lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False, None
    try:
        if _locked(lock, fcntl.LOCK_SH):
            return False, None
    finally:
        os.close(lock)
    try:
        return True, msgspec.json.decode((data_dir / _STATE).read_bytes(), type=UpState)
    except (OSError, msgspec.DecodeError):
        return True, None


def _locked(lock: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock could be had."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _taken(data_dir: Path) -> str:
    state = find(data_dir)
    which = "another holdfast up" if state is None else f"another holdfast up (process {state.pid}, gateway {state.gateway})"
    return (
        f"{which} runs on the data directory {data_dir}; give it a new configuration with `holdfast reload`, or choose another --data-dir"
    )
