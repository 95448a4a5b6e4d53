"""What requests and answers mean, whatever their format: two that mean the same are equal here.

Written for comparing a call before and after a translation, apart from the code that translates; it takes what the official SDKs send and
return, and skips nothing that it does not know: such fields stand in `other`.
"""

from typing import Any

from holdfast.testing.meaning.answers import Said, gathered, said
from holdfast.testing.meaning.requests import Asked, Format, asked

__all__ = ["Asked", "Format", "Said", "asked", "gathered", "said", "unequal"]


def unequal(one: Asked | Said, other: Asked | Said) -> dict[str, tuple[Any, Any]]:
    """The fields in which two meanings differ, with both values."""
    pairs = {field: (getattr(one, field), getattr(other, field)) for field in one.__struct_fields__}
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}
