"""Secrets by reference (`SOURCE:NAME`), one file per source. A value is shown by nothing but `Secret.reveal`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from holdfast import plugins
from holdfast.errors import SecretError, did_you_mean


class Secret(str):
    """A resolved secret. Compares and encodes as the text that it is; `repr`, `str` and formatting show stars."""

    __slots__ = ()

    def reveal(self) -> str:
        """The value, as a plain string."""
        return self[:]

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return "***"


class Surroundings(Struct, frozen=True):
    """What sources read from. folder: where relative paths begin."""

    environment: Mapping[str, str]
    folder: Path


class Found(Struct, frozen=True):
    """value: as it lies in the source. caution: what is wrong with the way it is kept, "" when nothing is."""

    value: str
    caution: str = ""


class SecretSource(Protocol):
    """What a file of this package offers as `PLUGIN`; the file name is the SOURCE of a reference."""

    def read(self, name: str, surroundings: Surroundings) -> Found:
        """Raises SecretError saying what is missing and where; never with a value in it."""


class Secrets:
    """Resolves references and remembers what it gave out, so that no record ever shows it.

    values: every secret resolved so far. cautions: what their sources warn about, with the reference.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.values: set[Secret] = set()
        self.cautions: list[str] = []

    def resolve(self, reference: str) -> Secret:
        """The secret behind `SOURCE:NAME`, without white space around it.

        Raises SecretError naming the reference; text that is no reference may be a key and is never repeated.
        """
        source, name = parse(reference)
        try:
            found = _load(source).read(name, self.surroundings)
        except SecretError as error:
            raise SecretError(f"{reference}: {error}") from None
        value = found.value.strip()
        if not value:
            raise SecretError(f"{reference}: the value is empty")
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise SecretError(f"{reference}: the value holds characters that no request header can carry")
        if found.caution:
            self.cautions.append(f"{reference}: {found.caution}")
        secret = Secret(value)
        self.values.add(secret)
        return secret


PLANNED = ("aws-secretsmanager", "vault")
"""Sources of the configuration's contract that this version does not have yet; named so that they are not taken for typos."""


def parse(reference: str) -> tuple[str, str]:
    """The source and the name in it; raises SecretError for what is no reference, without repeating it: it may be a key."""
    source, colon, name = reference.partition(":")
    known = plugins.names("secrets")
    if colon and name and source in (*known, *PLANNED):
        return source, name
    hint = did_you_mean(source, known) if colon else f"; known here: {', '.join(known)}"
    raise SecretError(f"not a secret reference SOURCE:NAME such as env:OPENAI_API_KEY (the secret itself never stands here){hint}")


def _load(source: str) -> SecretSource:
    try:
        found: SecretSource = plugins.load("secrets", source)
    except KeyError:
        raise SecretError(
            f"the source {source} is not supported by this version; known here: {', '.join(plugins.names('secrets'))}"
        ) from None
    return found
