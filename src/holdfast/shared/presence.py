"""Who serves calls on a data directory: every gateway has a file there, locked while it lives, in which it confirms what it has seen.

The lock tells the living from the dead without process ids, which are given out again, and mean nothing in another container.
"""

import fcntl
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from holdfast.errors import StorageError

FOLDER = "gateways"
_DIGITS = 20
"""Width of the confirmed serial at the beginning of a file."""


class Gateway(Struct, frozen=True, kw_only=True):
    """A process that serves calls. kind: a worker of `holdfast up`, or the gateway of a `holdfast run`. agents, releases: those of its
    configuration. started: wall clock in nanoseconds."""

    pid: int
    kind: Literal["worker", "run"]
    address: str
    agents: tuple[str, ...]
    releases: tuple[str, ...]
    started: int
    run: str = ""


class Present(Struct, frozen=True):
    """A gateway that lives. confirmed: serial of the last state of the kill switch that it has carried out. waiting: calls in its admission
    queue by agent, as it told last."""

    gateway: Gateway
    confirmed: int
    waiting: dict[str, int] = {}


_decode = msgspec.json.Decoder(Gateway).decode
_decode_waiting = msgspec.json.Decoder(dict[str, int]).decode


class Presence:
    """This process's own file, until `close`; raises StorageError."""

    def __init__(self, data_dir: Path, gateway: Gateway) -> None:
        folder = data_dir / FOLDER
        name = f"{gateway.pid}-{secrets.token_hex(6)}"
        unfinished = folder / f".{name}"
        self._path = folder / f"{name}.json"
        self._file = -1
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)  # before anybody can see it
            self._told_at = os.write(self._file, b"%0*d\n" % (_DIGITS, 0) + msgspec.json.encode(gateway) + b"\n")
            unfinished.replace(self._path)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            if self._file >= 0:
                os.close(self._file)
            raise StorageError(
                f"{folder} cannot be written: {error.strerror}; check that its folder exists and belongs to this user"
            ) from error

    def confirm(self, serial: int) -> None:
        """Everything that the state of this serial asks for is done; raises OSError when that cannot be told."""
        os.pwrite(self._file, b"%0*d" % (_DIGITS, serial), 0)

    def tell(self, waiting: Mapping[str, int]) -> None:
        """How many calls of each agent wait in the admission queue; raises OSError when that cannot be told."""
        told = msgspec.json.encode(waiting) + b"\n"
        os.pwrite(self._file, told, self._told_at)
        os.ftruncate(self._file, self._told_at + len(told))

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def present(data_dir: Path) -> list[Present]:
    """The gateways that live, the oldest first; what the dead have left is removed. Raises StorageError."""
    folder = data_dir / FOLDER
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".json"]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{folder} cannot be read: {error.strerror}; check whose folder it is") from error
    found = [living for path in paths if (living := _look(path)) is not None]
    return sorted(found, key=lambda living: (living.gateway.started, living.gateway.pid))


def _look(path: Path) -> Present | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # ended since the folder was read
        return None
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}; check whose file it is") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: others may look at the same time
    except BlockingIOError:
        serial, gateway, *told = os.pread(file, 1 << 20, 0).split(b"\n")
        return Present(_decode(gateway), int(serial), _waiting(told))
    else:
        path.unlink(missing_ok=True)
        return None
    finally:
        os.close(file)


def _waiting(told: list[bytes]) -> dict[str, int]:
    """Nobody where it was never told, or is being told right now."""
    with suppress(msgspec.MsgspecError):
        return _decode_waiting(told[0]) if told and told[0] else {}
    return {}
