"""Names that a translation has to give: they derive from what is there, so that the same call has the same name on every turn."""

import re
from hashlib import sha256

FOREIGN = "holdfast~"
"""Stands in the signature or id of reasoning that came from another provider: its own would not know it (see `foreign`). Its last character
is rare, so that a request without it is known as such in one quick look (2 us for 50 KB instead of 50)."""

_VALID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LONGEST_USER = 64


def call_id(given: str) -> str:
    """The id of a tool call as every format takes it: Anthropic allows letters, digits, - and _, OpenAI 40 characters."""
    return given if _VALID.fullmatch(given) else f"call_{digest(given)}"


def user_id(given: str) -> str:
    """OpenAI takes 64 characters; of a longer one the digest tells the users apart just as well."""
    return given if len(given) <= _LONGEST_USER else sha256(given.encode("utf-8", "surrogatepass")).hexdigest()


def digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
