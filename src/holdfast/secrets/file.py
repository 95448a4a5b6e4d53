"""`file:PATH`: the content of a file; a relative path begins at the configuration file's folder, `~` at the user's home."""

from pathlib import Path

from holdfast.errors import SecretError
from holdfast.secrets import Found, SecretSource, Surroundings

MAX_SIZE = 64 * 1024
"""Bytes; a longer file is none of a secret."""


class File:
    def read(self, name: str, surroundings: Surroundings) -> Found:
        try:
            path = surroundings.folder / Path(name).expanduser()
            if not path.is_file():  # a pipe would block, a device would never end
                raise SecretError(f"there is no file {path}")
            status = path.stat()
            if status.st_size > MAX_SIZE:
                raise SecretError(f"{path} is larger than {MAX_SIZE} bytes")
            value = path.read_text("utf-8")
        except UnicodeDecodeError:
            raise SecretError(f"{name} is not UTF-8 text") from None
        except (OSError, ValueError, RuntimeError) as error:  # ValueError: a null byte in the name; RuntimeError: no home for `~user`
            raise SecretError(f"{name} cannot be read ({getattr(error, 'strerror', None) or error})") from None
        caution = "every user of this machine can read the file; chmod 600 it" if status.st_mode & 0o004 else ""
        return Found(value, caution)


PLUGIN: SecretSource = File()
