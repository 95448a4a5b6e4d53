"""What the supervisor and its workers say to each other; apart from both, so that the supervisor loads nothing of the data plane.

The supervisor writes a `WorkerOrder` to the worker's standard input, perhaps `RETIRE` later; the end of the input means stop. The worker
writes a `Report` per line to its standard output, the first `Status` once it answers.
"""

from msgspec import Struct

RETIRE = b"retire\n"
"""A successor listens on the same socket: end without failing a request, however long that takes."""


class WorkerOrder(Struct, frozen=True, kw_only=True):
    """What a worker is told. config: the file's name, for what it says about itself and for relative paths; text: what it held when the
    supervisor accepted it, None without a file. listener: number of the listening socket that it takes over."""

    config: str | None
    text: str | None
    data_dir: str
    listener: int


class Status(Struct, frozen=True, kw_only=True, tag="status"):
    """How a worker does. trouble: why it refuses calls, "" when it serves them. leaving: somebody ended it: another is to take over."""

    trouble: str = ""
    connections: int = 0
    calls: int = 0
    leaving: bool = False


class LastWords(Struct, frozen=True, tag="last words"):
    """Why it ends."""

    text: str


Report = Status | LastWords
