"""What the supervisor and its workers say to each other; apart from both, so that the supervisor loads nothing of the data plane."""

from msgspec import Struct

READY = b"ready\n"
"""What a worker writes once it answers."""


class WorkerOrder(Struct, frozen=True, kw_only=True):
    """What a worker is told. listener: number of an inherited listening socket, None to bind host and port beside the other workers.
    shared: other workers continue the same conversations."""

    config: str | None
    data_dir: str
    host: str
    port: int
    listener: int | None = None
    shared: bool = False
