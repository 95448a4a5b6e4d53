"""Signatures by the Standard Webhooks specification 1.0 (standardwebhooks.com): the receiver can tell that it was us, and when."""

import hmac
from base64 import b64decode, b64encode

_PREFIX = "whsec_"
_LEAST, _MOST = 24, 64


def signing_key(secret: str) -> bytes:
    """The key in a secret as the specification writes it, `whsec_` and 24 to 64 bytes in base64; ValueError for anything else.

    The message never repeats the secret.
    """
    try:
        key = b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not _LEAST <= len(key) <= _MOST:
        raise ValueError(f"must be {_LEAST} to {_MOST} random bytes in base64, such as: echo {_PREFIX}$(openssl rand -base64 32)")
    return key


def signed(key: bytes, message_id: str, at_s: int, body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The three headers that go with a message. at_s: now, in seconds since the epoch; receivers refuse what is minutes old."""
    identifier, instant = message_id.encode("ascii"), b"%d" % at_s
    digest = hmac.digest(key, identifier + b"." + instant + b"." + body, "sha256")
    return ((b"webhook-id", identifier), (b"webhook-timestamp", instant), (b"webhook-signature", b"v1," + b64encode(digest)))
