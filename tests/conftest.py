"""Fixtures that tests of every layer use."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest

from holdfast.policy.history import OwnPlaces, Places
from holdfast.shared.conversations import SharedPlaces


@pytest.fixture(scope="session", autouse=True)
def interrupts_reach_what_tests_start() -> None:
    """Jobs that a script starts with `&` ignore INT and QUIT, and so would everything that tests start and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published real data: `HOLDFAST_SHARED_DATA`, else `../shared/data` beside the checkout. Skips where it is missing."""
    folder = Path(os.environ.get("HOLDFAST_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder} (set HOLDFAST_SHARED_DATA)")
    return folder


@pytest.fixture(scope="module", params=["one process", "several processes"])
def places_of_workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Places]]]:
    """Makes what several workers know of conversations: the same memory in one process, or one shared file, opened by each of them.

    Takes the number of workers and the capacity; those made before are closed.
    """
    folder, numbers = tmp_path_factory.mktemp("places"), count()

    def make(workers: int = 1, capacity: int = 1_000) -> list[Places]:
        opened.close()
        if request.param == "one process":
            return [OwnPlaces(capacity)] * workers
        file = folder / f"conversations-{next(numbers)}"
        opened.callback(file.unlink)
        return [_opened(file, capacity) for _ in range(workers)]

    def _opened(file: Path, capacity: int) -> Places:
        places = SharedPlaces(file, capacity)
        opened.callback(places.close)
        return places

    with ExitStack() as opened:
        yield make
