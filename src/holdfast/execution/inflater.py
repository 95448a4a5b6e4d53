"""Takes a content coding off an answer, piece by piece."""

import zlib


class Inflater:
    """gzip and deflate, with or without the zlib header; KeyError for any other coding. most: bytes that one piece may become."""

    def __init__(self, encoding: bytes, most: int) -> None:
        self._window = {b"gzip": 47, b"x-gzip": 47, b"deflate": 0}[encoding.strip().lower()]
        self._most = most
        self._inflate: zlib._Decompress | None = None

    def decode(self, data: bytes) -> bytes:
        """Raises zlib.error for what does not decompress, or becomes more than it may."""
        if self._inflate is None:
            self._inflate = zlib.decompressobj(self._window or (15 if data[0] & 15 == 8 else -15))
        decoded = self._inflate.decompress(data, self._most)
        if self._inflate.unconsumed_tail:
            raise zlib.error("answer inflates beyond all measure")
        return decoded
