"""What several processes know of conversations is what one process would know, also when some of them are killed."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.history import Conversations, OwnPlaces, Place, Places, Remembered
from holdfast.shared.conversations import SharedPlaces
from holdfast.shared.table import Table
from holdfast.wire.canonical import turn

KEYS = [bytes([bucket] * 8 + [number] * 8) for bucket, number in ((1, 1), (1, 2), (1, 3), (2, 4))]
"""Three of them in one bucket, whatever the number of buckets."""

LEADS = [b"", b"a" * 16, b"b" * 16]

keys = st.sampled_from(KEYS)
leads = st.sampled_from(LEADS)
puts = st.tuples(st.just("put"), keys, leads)
takes = st.tuples(st.just("take"), st.lists(keys, min_size=1, max_size=2), leads)
remembers = st.tuples(st.just("remember"), keys, st.integers(0, 10**9))
responses = st.tuples(st.just("response"), keys, st.none())


def place(number: int, lead: bytes = b"") -> Place:
    return Place(f"interaction-{number}", f"decision-{number}", number, number // 2, lead)


def done(places: Places, step: tuple[str, Any, Any], number: int) -> object:
    kind, key, more = step
    if kind == "put":
        return places.put(key, place(number, more))
    if kind == "take":
        return places.take(key, more)
    if kind == "remember":
        return places.remember(key, f"interaction-{number}", more)
    return places.response(key)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], tuple[SharedPlaces, SharedPlaces]]:
    """Two views of one new file; the file before is closed."""
    file, before = tmp_path_factory.mktemp("shared") / "conversations", []

    def anew(capacity: int) -> tuple[SharedPlaces, SharedPlaces]:
        while before:
            before.pop().close()
        file.unlink(missing_ok=True)
        before.extend([SharedPlaces(file, capacity), SharedPlaces(file, capacity)])
        return before[0], before[1]

    return anew


@given(steps=st.lists(st.tuples(st.one_of(puts, takes, remembers, responses), st.booleans()), min_size=10, max_size=80))
def test_two_processes_find_what_one_would(steps: list[tuple[tuple[str, Any, Any], bool]], opened) -> None:
    shared, own = opened(80), OwnPlaces()
    for number, (step, which) in enumerate(steps):
        assert done(shared[which], step, number) == done(own, step, number)


@given(steps=st.lists(st.one_of(puts, takes), min_size=10, max_size=80), capacity=st.integers(1, 7))
def test_whatever_is_overwritten_each_place_is_taken_once_until_it_is_a_branch(
    steps: list[tuple[str, Any, Any]], capacity: int, opened
) -> None:
    shared, _ = opened(capacity)
    put: list[tuple[bytes, Place]] = []
    taken: dict[bytes, Place] = {}
    free: set[str] = set()
    for number, step in enumerate(steps):
        found = done(shared, step, number)
        kind, key, lead = step
        if kind == "put":
            put.append((key, place(number, lead)))
            free.add(f"interaction-{number}")
        elif found is not None:
            assert isinstance(found, tuple)
            state, where = key[found[0]], found[1]
            assert (state, where) in put[-capacity:], "what is among the last so many is there, word for word, and nothing else"
            if where.interaction not in free:
                assert not [at for other, at in put[-capacity:] if other == state and at.interaction in free]
                assert taken[state] == where or (state, taken[state]) not in put[-capacity:], (
                    "the one that was taken last, while it is there"
                )
            free.discard(where.interaction)
            taken[state] = where
        else:
            assert not [at for state, at in put[-capacity:] if state in key and at.interaction in free]


class _ProcessDiedError(Exception):
    pass


class _Words:
    """The words of a table whose process dies at one of its stores."""

    def __init__(self, words: memoryview, until: int) -> None:
        self._words = words
        self._left = until

    def __getitem__(self, at: int) -> int:
        value: int = self._words[at]
        return value

    def __setitem__(self, at: int, value: int) -> None:
        if not self._left:
            raise _ProcessDiedError
        self._left -= 1
        self._words[at] = value


@given(
    steps=st.lists(st.tuples(st.one_of(puts, takes), st.none() | st.integers(0, 9)), min_size=10, max_size=60), capacity=st.integers(1, 8)
)
def test_a_process_that_dies_at_any_store_leaves_a_table_that_works(
    steps: list[tuple[tuple[str, Any, Any], int | None]], capacity: int
) -> None:
    memory = bytearray(Table.size(capacity))
    sound = Table(memoryview(memory), capacity)
    put: list[tuple[bytes, bytes]] = []
    for number, ((kind, key, tag), dies_at) in enumerate(steps):
        table = Table(memoryview(memory), capacity)
        if dies_at is not None:
            table._words = _Words(memoryview(memory).cast("Q"), dies_at)  # type: ignore[assignment]
        with suppress(_ProcessDiedError):
            if kind == "put":
                put.append((key, payload(number, tag)))
                table.put(*put[-1])
            else:
                table.take(key[0], tag or bytes(16))
        assert all(newest is None or (key, newest) in put for key in KEYS for newest in [sound.newest(key)])
    for _ in range(capacity + 1):  # nobody goes round in circles
        for key in KEYS:
            sound.take(key, bytes(16))
    for number in range(capacity):
        sound.put(KEYS[0], payload(number))
    assert [sound.take(KEYS[0], bytes(16)) for _ in range(capacity)] == [(payload(number), False) for number in reversed(range(capacity))]


def payload(number: int, tag: bytes = b"") -> bytes:
    return tag.ljust(16, b"\0") + number.to_bytes(176, "big")


class _Read(_Words):
    """Counts the words that are read."""

    count = 0

    def __getitem__(self, at: int) -> int:
        self.count += 1
        return super().__getitem__(at)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_equal_entries_by_the_hundred_are_no_burden_for_others_in_their_bucket(order: tuple[int, int]) -> None:
    memory = memoryview(bytearray(Table.size(1_000)))
    table = Table(memory, 1_000)
    read = _Read(memory.cast("Q"), 1_000_000)
    table._words = read  # type: ignore[assignment]
    for _ in range(400):
        for which in order:
            table.put(KEYS[which], bytes(192))
        table.take(KEYS[1], bytes(16))
    read.count = 0
    for key in KEYS[:3]:
        table.take(key, bytes(16))
    assert read.count < 60


WORKER = """
import sys
from pathlib import Path
from holdfast.policy.history import Conversations
from holdfast.shared.conversations import SharedPlaces
from holdfast.wire.canonical import turn
places = SharedPlaces(Path(sys.argv[1]))
known, me, calls = Conversations(places), sys.argv[2], int(sys.argv[3])
one = [turn("user", ["hello"])]
two = [*one, turn("assistant", ["hi"]), turn("user", ["go on"])]
sys.stdin.readline()
for number in range(calls):
    known.answered(known.claim("agent", one, f"{me}-{number}"), [turn("assistant", ["hi"])], "d")
    print("put", f"{me}-{number}")
    print("took", known.claim("agent", two, "nobody").interaction, flush=True)
"""


def _workers(file: Path, names: str, calls: int) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, str(file)]
    return [subprocess.Popen([*command, name, str(calls)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in names]


def _said(worker: subprocess.Popen[str], word: str, out: str) -> list[str]:
    return [line.split()[1] for line in out.splitlines() if line.startswith(word)]


def test_processes_at_once_continue_every_one_of_many_equal_conversations_exactly_once(tmp_path: Path) -> None:
    workers = _workers(tmp_path / "conversations", "abcd", 500)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    outs = [worker.communicate()[0] for worker in workers]
    put = [name for worker, out in zip(workers, outs, strict=True) for name in _said(worker, "put", out)]
    took = Counter(name for worker, out in zip(workers, outs, strict=True) for name in _said(worker, "took", out))
    assert len(put) == 2_000
    assert took == Counter(put)


def test_processes_that_are_killed_block_nobody_and_lose_only_what_they_held(tmp_path: Path) -> None:
    file = tmp_path / "conversations"
    for _ in range(5):
        (victim,) = _workers(file, "v", 1_000_000)
        assert victim.stdin is not None
        assert victim.stdout is not None
        victim.stdin.write("go\n")
        victim.stdin.flush()
        victim.stdout.readline()
        victim.kill()
        victim.communicate()
        (other,) = _workers(file, "o", 50)
        out, _ = other.communicate("go\n")
        assert len(set(_said(other, "took", out))) >= 50 - 1, "at most the place that the victim had left free comes between"
        assert "nobody" not in _said(other, "took", out)


def test_what_was_known_outlives_the_processes(tmp_path: Path) -> None:
    places = SharedPlaces(tmp_path / "conversations", 10)
    known = Conversations(places)
    known.answered(known.claim("agent", [turn("user", ["hello"])], "one"), [turn("assistant", ["hi"])], "d1")
    known.remember_response("agent", "r1", "one", 15)
    places.close()
    again = SharedPlaces(tmp_path / "conversations", 10)
    known = Conversations(again)
    longer = [turn("user", ["hello"]), turn("assistant", ["hi"]), turn("user", ["go on"])]
    assert known.claim("agent", longer, "other").interaction == "one"
    assert known.of_response("agent", "r1") == Remembered("one", 15)
    again.close()


def test_hashes_of_one_data_directory_say_nothing_of_those_of_another(tmp_path: Path) -> None:
    one, same, other = (SharedPlaces(tmp_path / name / "conversations", 10) for name in ("one", "one", "other"))
    assert one.salt == same.salt != other.salt
    assert len(one.salt) == 16
    for places in (one, same, other):
        places.close()


def test_the_longest_ids_there_are_fit(opened) -> None:
    shared, _ = opened(10)
    longest = Place("x" * 128, "0193b0d4-7b5e-7c55-8a5d-0123456789ab", 2**32 - 1, 2**32 - 1, os.urandom(16))
    shared.put(KEYS[0], longest)
    shared.remember(KEYS[0], "x" * 128, 2 * 10**9)
    assert shared.take([KEYS[0]], b"") == (0, longest)
    assert shared.response(KEYS[0]) == Remembered("x" * 128, 2 * 10**9)
    with pytest.raises(ValueError, match="129 bytes"):
        shared.put(KEYS[0], Place("x" * 129, "", 0, 0, b""))
