"""What the documentation says is so: configurations load, commands and options exist, programs run, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from holdfast import plugins
from holdfast.cli import build
from holdfast.config import load
from holdfast.testing.simulated_provider import SimulatedProvider, running_in_thread

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECRETS = {"OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2", "RESERVE_KEY": "sk-3", "SUPPORT_AGENT_KEY": "key"} | {
    "HOLDFAST_LEDGER_URL": "postgresql://holdfast:word@db.example.com/holdfast"
}


def blocks(kind: str) -> list[object]:
    """Every fenced block of a kind, named by its page and line."""
    texts = [(page.name, page.read_text("utf-8")) for page in PAGES]
    return [
        pytest.param(block.group(2), id=f"{name}:{text.count(chr(10), 0, block.start()) + 1}")
        for name, text in texts
        for block in BLOCK.finditer(text)
        if block.group(1) == kind
    ]


def commands() -> list[object]:
    """Every `holdfast …` line of the pages, in shell blocks and indented ones."""
    lines = [line.strip() for page in PAGES for line in page.read_text("utf-8").splitlines()]
    return [line for line in dict.fromkeys(lines) if line.startswith("holdfast ")]


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_configuration_in_the_docs_loads(text: str, tmp_path: Path) -> None:
    file = tmp_path / "holdfast.yaml"
    file.write_text(text, "utf-8")
    assert load(file, SECRETS).gateway.agents


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_docs_exists_with_its_options(line: str) -> None:
    command: click.Command = typer.main.get_command(build())
    words = shlex.split(line, comments=True)[1:]
    context = click.Context(command)
    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]!r}"
        command, words = found, words[1:]
        context = click.Context(command, parent=context)
    command.make_context(command.name, words, parent=context)


def test_every_command_is_documented() -> None:
    pages = "".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in plugins.names("cli") if f"holdfast {name}" not in pages] == []


@pytest.mark.parametrize("text", blocks("python"))
def test_a_program_in_the_docs_runs_under_guard(text: str, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text(text, "utf-8")
    run = [sys.executable, "-c", "from holdfast.cli import main; main()", "run", "--cost-limit", "1", "--", sys.executable, "agent.py"]
    with running_in_thread(SimulatedProvider().application) as provider:
        environment = {"OPENAI_BASE_URL": provider.openai, "OPENAI_API_KEY": "sk-1", "HOLDFAST_DATA_DIR": str(tmp_path / "data")}
        done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8")) if not target.startswith("http")]
    assert [target for target in targets if not (page.parent / target).exists()] == []
