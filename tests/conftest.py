"""Fixtures that tests of every layer use."""

import os
import signal
from pathlib import Path

import pytest


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
