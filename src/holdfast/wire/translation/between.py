"""Which formats can be translated into which."""

from holdfast.wire.translation import Translation


def between(caller: str, target: str) -> Translation | None:
    """The translation from the format named `caller` to the one named `target`; None where there is none."""
    return None
