"""The sizes of the house hold: modules of at most 500 lines, functions of at most 60."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "bench").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_and_its_functions_fit_on_their_pages(module: Path) -> None:
    source = module.read_text("utf-8")
    assert source.count("\n") <= 500, "longer than 500 lines: split it by what its parts are for"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is longer than 60 lines"


def test_own_imports_stand_at_the_top_outside_the_command_line() -> None:
    hidden = [
        f"{module.relative_to(ROOT)}:{node.lineno}"
        for module in (ROOT / "src").rglob("*.py")
        if "cli" not in module.parts and module.name != "plugins.py"
        for function in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdfast")
    ]
    assert hidden == []
