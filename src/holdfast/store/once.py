"""The record of a process that has one thing to say: a journal file of its own, on stable storage before it goes on."""

import os
import secrets
from pathlib import Path

from holdfast.errors import StorageError
from holdfast.events import Event, encode_into
from holdfast.store.files import FOLDER, file_name
from holdfast.store.journal import sync_folder, sync_to_disk


def record_once(data_dir: Path, wall_ns: int, event: Event) -> None:
    """Write `event` into a new journal file; raises StorageError."""
    folder = data_dir / FOLDER
    path = folder / file_name(wall_ns, secrets.token_hex(6), 1)
    line = bytearray()
    encode_into(event, line)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            while line:
                del line[: os.write(descriptor, line)]
            sync_to_disk(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(folder)
    except OSError as error:
        raise StorageError(f"the journal {path} cannot be written ({error.strerror}): free space or change --data-dir") from error
