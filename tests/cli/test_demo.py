"""The demonstration tells its whole story without a terminal and ends by itself."""

import subprocess
import sys
from pathlib import Path


def test_the_demo_tells_its_story_and_ends_by_itself(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from holdfast.cli import main; main()", "demo", "--keep", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert told.returncode == 0, told.stderr
    chapters = ["under guard", "answered:", "model is down", "answered:", "starts to loop", "stopped at a hard limit (exit 122)"]
    chapters += ["Refused by Holdfast", "decisions list", "research", "decisions show", "fell_back", "refund_order", "That was it"]
    at = 0
    for chapter in chapters:
        at = told.stdout.find(chapter, at)
        assert at >= 0, f"{chapter!r} is missing or too early in:\n{told.stdout}"
    assert "Traceback" not in told.stdout + told.stderr
