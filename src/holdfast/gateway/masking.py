"""Secrets taken out of what a tool says: some servers repeat the key that they reject, and neither agent nor record may learn it."""

import zlib
from collections.abc import Sequence

from holdfast.errors import MalformedAnswer
from holdfast.execution.inflater import Inflater
from holdfast.execution.upstream import Headers

_MASK = b"***"
_MOST_INFLATED = 16 * 1024 * 1024


def masked(data: bytes, secrets: Sequence[bytes]) -> bytes:
    """Longer secrets first: one that begins with another would leave its end behind."""
    for secret in sorted(secrets, key=len, reverse=True):
        data = data.replace(secret, _MASK)
    return data


def masked_headers(headers: Headers, secrets: Sequence[bytes]) -> Headers:
    """The same headers where there is nothing to hide, which is nearly always."""
    if not any(secret in value for secret in secrets for _, value in headers):
        return headers
    return [(name, masked(value, secrets)) for name, value in headers]


class MaskedBody:
    """A body on its way, read without its content coding, `encoding`; what may be the beginning of a secret waits for more of it."""

    def __init__(self, secrets: Sequence[bytes], encoding: bytes) -> None:
        self._secrets = secrets
        self._kept = max((len(secret) for secret in secrets), default=1) - 1
        self._rest = b""
        self._inflater: Inflater | None = None
        if encoding and encoding != b"identity":
            try:
                self._inflater = Inflater(encoding, _MOST_INFLATED)
            except KeyError:
                raise MalformedAnswer(f"answer in an encoding that nobody asked for: {encoding.decode('latin-1')[:40]}") from None

    def feed(self, data: bytes) -> bytes:
        """What may be passed on now; raises MalformedAnswer for what does not decompress."""
        if self._inflater is not None:
            try:
                data = self._inflater.decode(data)
            except zlib.error:
                raise MalformedAnswer("answer does not decompress") from None
        data = masked(self._rest + data, self._secrets)
        cut = max(len(data) - self._kept, 0)
        self._rest = data[cut:]
        return data[:cut]

    def flush(self) -> bytes:
        rest, self._rest = self._rest, b""
        return rest
