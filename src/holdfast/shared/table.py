"""A table in shared memory: entries of one size under keys, several under one key, each taken once, the oldest overwritten.

Entries lie in a ring, numbered in the order of writing, and every link is the number of an older entry. An entry that is not where its
number says was overwritten, and with it all that are older: so nothing needs to be unlinked to be overwritten. Every change takes effect
with a store of 8 bytes; a process that dies before leaves the table as it was.

    bucket -> youngest entry of one key -> youngest entry of another key -> ...   (OTHER)
                     |  |
                     |  +-> the entry of this key that was taken last             (LAST, meaningless before the first)
                     +----> next older entry of this key, not taken -> ...        (OLDER)
"""

import struct

PAYLOAD = 192
"""Bytes of an entry that are its user's; `take` compares the first 16, the tag."""

_KEY, _OLDER, _OTHER, _LAST, _FREE, _TAG = 1, 3, 4, 5, 6, 8  # where they lie in an entry, in words of 8 bytes; its number is the first
_ENTRY = _TAG + PAYLOAD // 8
_HEADER = 8  # words, the number of the youngest entry in the first; then the buckets, then the entries
_BUCKETS = 8  # for each entry, so that most keys that have none need no further look
_LOOKED_AT = 1_000  # entries of one key that are looked through for a tag
_low_of = struct.Struct("=Q8x").unpack
_words_of = struct.Struct("=QQ").unpack


class Table:
    """`capacity` entries in `size(capacity)` bytes that were zero once. Whoever uses it holds a lock around `take`, `newest` and `put`."""

    def __init__(self, view: memoryview, capacity: int) -> None:
        self._bytes = view
        self._words = view.cast("Q")
        self._capacity = capacity
        self._buckets = _BUCKETS * capacity
        self._first = _HEADER + self._buckets

    @staticmethod
    def size(capacity: int) -> int:
        return 8 * (_HEADER + (_BUCKETS + _ENTRY) * capacity)

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._bytes.release()

    def may_have(self, key: bytes) -> bool:
        """Whether a look under the lock is worth it; False: there was nothing just now. Needs no lock."""
        number: int = self._words[_HEADER + _low_of(key)[0] % self._buckets]
        return number > 0 and number + self._capacity > self._words[0]

    def take(self, key: bytes, tag: bytes) -> tuple[bytes, bool] | None:
        """Take an entry; its payload, and whether it was taken before.

        The youngest with this tag first, else the youngest; where all are taken, the one that was taken last again.
        """
        _, youngest = self._find(*_words_of(key))
        if not youngest:
            return None
        words = self._words
        before, entry = (0, youngest) if words[youngest + _FREE] else (youngest, self._follow(youngest + _OLDER))
        if not entry:
            return self._payload(self._follow(youngest + _LAST) or youngest), True
        if self._bytes[8 * (entry + _TAG) : 8 * (entry + _TAG) + 16] != tag:
            before, entry = self._with_tag(before, entry, tag)
        words[youngest + _LAST] = words[entry]
        if before:
            words[before + _OLDER] = words[entry + _OLDER]
        else:
            words[youngest + _FREE] = 0
        return self._payload(entry), False

    def newest(self, key: bytes) -> bytes | None:
        """The payload that was put last under this key, taken or not."""
        _, youngest = self._find(*_words_of(key))
        return self._payload(youngest) if youngest else None

    def put(self, key: bytes, payload: bytes, *, alone: bool = False) -> None:
        """Add an entry; alone: the others under this key are forgotten."""
        words, number = self._words, self._words[0] + 1
        entry = self._at(number)
        words[entry] = 0  # overwritten from here on
        low, high = _words_of(key)
        before, youngest = self._find(low, high)
        bucket = _HEADER + low % self._buckets
        words[entry + _KEY], words[entry + _KEY + 1], words[entry + _FREE] = low, high, 1
        words[entry + _OTHER] = words[youngest + _OTHER] if youngest and not before else words[bucket]
        if youngest and not alone:
            words[entry + _OLDER] = words[youngest] if words[youngest + _FREE] else words[youngest + _OLDER]
        else:
            words[entry + _OLDER] = 0
        start = 8 * (entry + _TAG)
        self._bytes[start : start + PAYLOAD] = payload
        words[entry] = number
        words[0] = number
        words[bucket] = number  # found from here on
        if before:
            words[before + _OTHER] = words[youngest + _OTHER]  # if this is not reached, it stays behind its successor, never found

    def _at(self, number: int) -> int:
        return self._first + number % self._capacity * _ENTRY

    def _follow(self, link: int) -> int:
        """The entry, or 0 where the link leads nowhere (any more)."""
        number = self._words[link]
        entry = self._at(number)
        return entry if number and self._words[entry] == number else 0

    def _find(self, low: int, high: int) -> tuple[int, int]:
        """The entry before the youngest of a key in its bucket, 0 for none, and this youngest, 0 for none."""
        words, first, capacity = self._words, self._first, self._capacity
        before, number = 0, words[_HEADER + low % self._buckets]
        while number:
            entry = first + number % capacity * _ENTRY
            if words[entry] != number:
                break
            if words[entry + _KEY] == low and words[entry + _KEY + 1] == high:
                return before, entry
            before, number = entry, words[entry + _OTHER]
        return 0, 0

    def _with_tag(self, before: int, first: int, tag: bytes) -> tuple[int, int]:
        """The youngest entry with the tag from `first` on, else `first`, and the one before it."""
        words = self._words
        low, high = _words_of(tag)
        previous, entry = before, first
        for _ in range(_LOOKED_AT):
            if words[entry + _TAG] == low and words[entry + _TAG + 1] == high:
                return previous, entry
            previous, entry = entry, self._follow(entry + _OLDER)
            if not entry:
                break
        return before, first

    def _payload(self, entry: int) -> bytes:
        start = 8 * (entry + _TAG)
        return bytes(self._bytes[start : start + PAYLOAD])
