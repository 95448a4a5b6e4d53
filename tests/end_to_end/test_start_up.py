"""What is loaded when: a library import and `--help` must not pay for a data plane. Asserted on modules, not on time."""

import json
import subprocess
import sys

import pytest

TELL = "\nimport json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
HELP = """
import sys
from holdfast.cli import main
sys.argv = ["holdfast", *{words!r}]
try:
    main()
except SystemExit as end:
    assert end.code == 0
"""


def loaded(program: str) -> set[str]:
    """The modules and top-level packages that a program has loaded at its end."""
    done = subprocess.run([sys.executable, "-c", program + TELL], capture_output=True, text=True, check=True)
    modules: set[str] = set(json.loads(done.stderr.splitlines()[-1]))
    return modules


def test_importing_the_package_imports_nothing_else() -> None:
    modules = loaded("import holdfast")
    assert modules.isdisjoint({"asyncio", "msgspec", "httptools", "sqlalchemy", "yaml", "typer", "rich", "ssl", "socket"})
    assert {module for module in modules if module.startswith("holdfast")} == {"holdfast"}


@pytest.mark.parametrize("words", [[], ["run"], ["up"], ["sim"], ["decisions"], ["decisions", "list"], ["interactions"]], ids=" ".join)
def test_help_loads_no_data_plane(words: list[str]) -> None:
    modules = loaded(HELP.format(words=[*words, "--help"]))
    assert "holdfast.cli" in modules
    assert modules.isdisjoint({"sqlalchemy", "genai_prices", "httptools", "yaml", "uvloop", "asyncio", "ssl"})
    for room in ("assembly", "config", "gateway", "http", "ledger", "store", "execution", "wire"):
        assert f"holdfast.{room}" not in modules
