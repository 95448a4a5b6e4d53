"""Lines are the same backwards and forwards, whatever the blocks."""

import os
from pathlib import Path
from tempfile import TemporaryFile

from hypothesis import given
from hypothesis import strategies as st

from holdfast.store.lines import Line, LinesForward, lines_backward

CONTENT = st.binary(max_size=40) | st.text("ab\n", max_size=60).map(str.encode)


def expected(content: bytes) -> list[Line]:
    lines, offset = [], 0
    *complete, rest = content.split(b"\n")
    for data in complete:
        if data:
            lines.append(Line(offset, data))
        offset += len(data) + 1
    return [*lines, Line(offset, rest, ended=False)] if rest else lines


@given(content=CONTENT, block=st.integers(1, 20))
def test_backwards_gives_every_line_with_its_place(content: bytes, block: int) -> None:
    with TemporaryFile() as file:
        file.write(content)
        file.flush()
        assert list(lines_backward(file.fileno(), len(content), block)) == expected(content)[::-1]


@given(pieces=st.lists(CONTENT, max_size=5), block=st.integers(1, 20))
def test_forwards_gives_every_line_once_when_it_has_ended(pieces: list[bytes], block: int) -> None:
    with TemporaryFile() as file:
        reader, seen = LinesForward(), []
        for piece in pieces:
            file.write(piece)
            file.flush()
            seen += reader.read(file.fileno(), block)
        assert seen == [line for line in expected(b"".join(pieces)) if line.ended]


def test_reading_starts_where_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"old\nnew\n")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert list(LinesForward(4).read(descriptor)) == [Line(4, b"new")]
    finally:
        os.close(descriptor)
