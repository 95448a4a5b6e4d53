"""Conversations that several processes continue: `policy.history.Places` in shared memory."""

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from holdfast.policy.history import Place, Remembered
from holdfast.shared.memory import SharedMemory
from holdfast.shared.table import Table

CAPACITY = 32_768
"""Places, and as many ids of answers: 8 MB each."""

_SALT = 64  # bytes before the two tables, of which 16 are in use
_INTERACTION = 128  # bytes at most
_DECISION = 36
_NO_LEAD = bytes(16)
_place = struct.Struct(f"=16sII{_DECISION}s4x{_INTERACTION}s")
_response = struct.Struct(f"=16xQ40x{_INTERACTION}s")


class SharedPlaces:
    """Places in the file `path`, for all processes that open it. Raises StorageError.

    A process that is killed keeps nobody waiting. What it took stays taken: the same request again is a branch of its conversation.
    """

    def __init__(self, path: Path, capacity: int = CAPACITY) -> None:
        size = Table.size(capacity)
        self._memory = SharedMemory(path, _SALT + 2 * size, "conversations 1")
        self._states = Table(self._memory.view[_SALT : _SALT + size], capacity)
        self._responses = Table(self._memory.view[_SALT + size :], capacity)
        self._of_responses = (_SALT + size, 8)
        self._lock, self._unlock = self._memory.lock, self._memory.unlock  # for the states: every call takes it twice
        with self._memory.locked(0, 16):
            if not any(self._memory.view[:16]):
                self._memory.view[:16] = os.urandom(16)
            self.salt = bytes(self._memory.view[:16])

    def take(self, states: Sequence[bytes], lead: bytes) -> tuple[int, Place] | None:
        table = self._states
        for index in range(len(states) - 1, -1, -1):
            if table.may_have(states[index]):
                self._lock()
                try:
                    taken = table.take(states[index], lead or _NO_LEAD)
                finally:
                    self._unlock()
                if taken is not None:
                    entry, again = taken
                    place = _read(entry)
                    if place.turns or not again:
                        return index, place
        return None

    def put(self, state: bytes, place: Place) -> None:
        decision = place.decision.encode()
        entry = _place.pack(place.lead or _NO_LEAD, place.turns, place.ignored, decision, _fitting(place.interaction))
        self._lock()
        try:
            self._states.put(state, entry)
        finally:
            self._unlock()

    def response(self, key: bytes) -> Remembered | None:
        with self._memory.locked(*self._of_responses):
            return self._response(key)

    def remember(self, key: bytes, interaction: str, tokens: int) -> None:
        encoded = _fitting(interaction)
        with self._memory.locked(*self._of_responses):
            known = self._response(key)
            most = tokens if known is None else max(tokens, known.tokens)
            self._responses.put(key, _response.pack(most, encoded), alone=True)

    def close(self) -> None:
        """Unmap the file; nothing of it may be used after that."""
        self._states.close()
        self._responses.close()
        self._memory.close()

    def _response(self, key: bytes) -> Remembered | None:
        found = self._responses.newest(key)
        if found is None:
            return None
        tokens, interaction = _response.unpack(found)
        return Remembered(_text(interaction), tokens)


def _read(entry: bytes) -> Place:
    lead, turns, ignored, decision, interaction = _place.unpack(entry)
    return Place(_text(interaction), _text(decision), turns, ignored, b"" if lead == _NO_LEAD else lead)


def _fitting(interaction: str) -> bytes:
    encoded = interaction.encode()
    if len(encoded) > _INTERACTION:
        raise ValueError(f"an interaction of {len(encoded)} bytes; {_INTERACTION} are the most")
    return encoded


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()
