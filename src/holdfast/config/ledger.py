"""The `ledger` section: where limits are kept, and what becomes of calls while they cannot be checked."""

from typing import Literal

from msgspec import Struct

from holdfast.config.document import Section, Value
from holdfast.config.quantities import shown
from holdfast.errors import SecretError, did_you_mean
from holdfast.secrets import Secrets

_Choice = Literal["refuse", "allow"]


class LedgerOptions(Struct, frozen=True, kw_only=True):
    """url: `postgresql://…`, "" for a file in the data directory. allow_unchecked: while limits cannot be checked, let calls through, each
    with a critical event, instead of refusing them."""

    url: str = ""
    allow_unchecked: bool = False


def read_ledger(top: Section, secrets: Secrets) -> LedgerOptions:
    """`ledger: {url: env:HOLDFAST_LEDGER_URL, on_unavailable: refuse}`."""
    section = top.section("ledger")
    url = section.get("url")
    options = LedgerOptions(
        url="" if url is None else _url(url, secrets),
        allow_unchecked=section.read("on_unavailable", _choice, "refuse") == "allow",
    )
    section.close()
    return options


def _url(value: Value, secrets: Secrets) -> str:
    def resolved(text: str) -> str:
        try:
            found = secrets.resolve(text)
        except SecretError as error:
            raise ValueError(str(error)) from None
        if not found.startswith(("postgresql://", "postgres://")):
            raise ValueError(f"the secret {text} must be a URL such as postgresql://user:password@host/database")
        return found.replace("postgres://", "postgresql://", 1)

    return value.read(resolved) or ""


def _choice(text: str) -> _Choice:
    if text == "refuse":
        return "refuse"
    if text == "allow":
        return "allow"
    raise ValueError(f"expected refuse or allow, not {shown(text)}{did_you_mean(text, ('refuse', 'allow'))}")
