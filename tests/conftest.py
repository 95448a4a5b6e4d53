"""Fixtures that tests of every layer use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published real data: `HOLDFAST_SHARED_DATA`, else `../shared/data` beside the checkout. Skips where it is missing."""
    folder = Path(os.environ.get("HOLDFAST_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder} (set HOLDFAST_SHARED_DATA)")
    return folder
