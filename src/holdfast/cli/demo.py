"""`holdfast demo`: what Holdfast does, told in under a minute with a simulated model provider."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from holdfast.testing.simulated_provider import Scripts

_CONFIGURATION = """\
version: 1
providers:
  primary: {{kind: simulated, base_url: "{primary}"}}
  backup:  {{kind: simulated, base_url: "{backup}"}}
agents:
  support:                      # two models for one name: the second takes over when the first is down
    routes: {{assistant: [primary/assistant, backup/assistant]}}
    retries: {{max: 1}}
  research:                     # its model has a bad day and calls the same tool for ever
    routes: {{assistant: [backup/sim-loop]}}
    loop_guard: off             # it would end this after eight calls; here is to be seen what a limit does
"""
_PAUSE_S = 1.2


def demo(
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="Leave configuration and journal here.", show_default=False)] = None,
) -> None:
    """See the whole story in under a minute, on a simulated model.

    A guarded agent works, its model dies, it loops, it is stopped, all is on record. Nothing leaves this machine.

    \b
    Example:
      holdfast demo --keep /tmp/holdfast-demo
    """
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        _Story(folder).tell()
    if keep is not None:
        _say(f"Everything is in {folder}; look around with: holdfast decisions list --data-dir {shlex.quote(str(folder / 'data'))}")


class _Story:
    """Runs real commands in `folder` and says what to look at."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._agent = folder / "agent.py"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")} | {
            "HOLDFAST_DATA_DIR": str(folder / "data"),
            "HOLDFAST_CONFIG": str(folder / "holdfast.yaml"),
        }

    def tell(self) -> None:
        with _provider() as backup:
            with _provider() as primary:
                configuration = _CONFIGURATION.format(primary=primary, backup=backup)
                (self._folder / "holdfast.yaml").write_text(configuration, "utf-8")
                from holdfast.testing import demo_agent

                self._agent.write_bytes(Path(str(demo_agent.__file__)).read_bytes())
                _say("1. An agent that knows nothing of Holdfast, under guard: it may spend one cent and take 30 seconds.")
                self._run(
                    "--agent", "support", "--timeout", "30", "--cost-limit", "0.01", "--", "python", "agent.py", "Please refund order 4711."
                )
            _say("2. Its model is down: nothing listens there any more. The next target of the route takes over; the agent never notices.")
            self._run(
                "--agent", "support", "--timeout", "30", "--cost-limit", "0.01", "--", "python", "agent.py", "Please refund order 4711."
            )
            _say("3. A model starts to loop: the same tool, again and again. Nobody watches. The limit is one cent.")
            self._run(
                "--agent", "research", "--timeout", "30", "--cost-limit", "0.01", "--", "python", "agent.py", "What is in order 4711?"
            )
            _say("   Stopped with exit code 122 before the call that would have cost too much. The agent's process is gone.")
        _say("4. Every decision is on record, newest first.")
        self._holdfast("decisions", "list", "--limit", "8")
        _say("5. And one of them whole: the refund that the backup model decided.")
        self._holdfast("decisions", "show", self._refund())
        _say("That was it. Now with your own agent: holdfast run --timeout 30 --max-retries 3 --cost-limit 5 -- python agent.py")

    def _refund(self) -> str:
        from holdfast.store.reader import DecisionFilter, JournalReader

        return JournalReader(self._folder / "data").decisions(DecisionFilter(action="refund_order"), limit=1)[0].decision_id

    def _run(self, *arguments: str) -> None:
        self._holdfast("run", *arguments)

    def _holdfast(self, *arguments: str) -> None:
        _say(f"$ holdfast {shlex.join(arguments)}", pause_s=0.3)
        named = [sys.executable if argument == "python" else argument for argument in arguments]
        command = [sys.executable, "-c", "from holdfast.cli import main; main()", *named]
        subprocess.run(command, env=self._environment, cwd=self._folder, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, check=False)


@contextmanager
def _provider() -> Iterator[str]:
    """A simulated provider that answers as the script says; its OpenAI base URL."""
    from holdfast.testing.simulated_provider import SimulatedProvider, running_in_thread

    with running_in_thread(SimulatedProvider(scripts=_scripts()).application) as address:
        yield address.openai


def _scripts() -> "Scripts":
    """Looks the order up, refunds it where that was asked, and answers."""
    from holdfast.testing.simulated_provider import Script, ScriptedAnswer, ScriptedCall, Scripts

    order = {"order": "4711"}
    return Scripts(
        (
            Script(
                model="assistant",
                answers=(
                    ScriptedAnswer(tool_calls=(ScriptedCall("look_up_order", order),)),
                    ScriptedAnswer(tool_calls=(ScriptedCall("refund_order", order),)),
                    ScriptedAnswer(text="Your order 4711 was delivered on Monday; we have refunded 49.90 USD."),
                ),
            ),
        )
    )


def _say(text: str, pause_s: float = _PAUSE_S) -> None:
    """A line of the story; people get the time to read it."""
    terminal = sys.stdout.isatty()
    if terminal and not text.startswith("$"):  # commands stay whole, to be copied
        indent = " " * (len(text) - len(text.lstrip()))
        text = textwrap.fill(text, shutil.get_terminal_size().columns, subsequent_indent=indent)
    bold = terminal and not os.environ.get("NO_COLOR")
    print(f"\n\x1b[1m{text}\x1b[0m" if bold else f"\n{text}", flush=True)
    if terminal:
        time.sleep(pause_s)


PLUGIN = demo
