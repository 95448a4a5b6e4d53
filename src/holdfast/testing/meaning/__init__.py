"""What requests and answers mean, whatever their format: two that mean the same are equal here.

Written for comparing a call before and after a translation, apart from the code that translates; it takes what the official SDKs send and
return, and skips nothing that it does not know: such fields stand in `other`.
"""

from holdfast.testing.meaning.answers import Said, gathered, said
from holdfast.testing.meaning.requests import Asked, asked

__all__ = ["Asked", "Said", "asked", "gathered", "said"]
