"""Real agents from the npm registry in empty homes, their provider simulated, the wire between agent and gateway tapped."""

import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httptools
import msgspec
import pytest
from msgspec import Struct

from holdfast.events import ApiCall, Decision, InteractionStarted
from holdfast.http.message import Request, Response
from holdfast.runner.environment import child_environment
from holdfast.runner.programs import adapt
from holdfast.store.reader import JournalReader
from holdfast.testing.gateway import gateway_in_thread, options_for
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread
from holdfast.testing.simulated_provider.script import Script, ScriptedAnswer, ScriptedCall, Scripts

PATIENCE_S = 120
"""Only ever waited for by a test that fails."""

PLANTED = {"OPENAI_API_KEY": "sk-planted-openai-5f1c77d0a2", "ANTHROPIC_API_KEY": "sk-ant-planted-93be04d16c"}
"""The real keys of the person who starts the agent."""

_LOOK = "(env; cat /proc/$PPID/environ | tr '\\0' '\\n') > seen.txt 2>/dev/null; true"
"""What the agent's shell does: write down its own environment and, where there is /proc, the agent's."""


class Agent(Struct, frozen=True):
    """command: does a task unattended, the task being its last word. settings: of its environment. key_header: where the provider
    looks for the key. tool: the one that is called, with `arguments`, before the agent says that it is done."""

    program: str
    command: tuple[str, ...]
    settings: dict[str, str]
    key_header: bytes
    tool: str
    arguments: dict[str, str] | str

    @property
    def script(self) -> Scripts:
        call = ScriptedCall(self.tool, self.arguments)
        return Scripts((Script((ScriptedAnswer("I will look.", (call,)), ScriptedAnswer("It is done."))),))


AGENTS = {
    "claude": Agent(
        program="claude",
        command=("claude", "--dangerously-skip-permissions", "-p", "Write the environment to seen.txt"),
        settings={
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "IS_SANDBOX": "1",  # as root it skips no permissions without this
        },
        key_header=b"x-api-key",
        tool="Bash",
        arguments={"command": _LOOK, "description": "Write the environment to a file"},
    ),
    "codex": Agent(
        program="codex",
        command=(
            *("codex", "exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            *("--disable", "plugins", "-c", "check_for_update_on_startup=false", "-c", "analytics.enabled=false"),
            "Write the environment to seen.txt",
        ),
        settings={},
        key_header=b"authorization",
        tool="exec",
        arguments=f"text(JSON.stringify(await tools.exec_command({msgspec.json.encode({'cmd': _LOOK}).decode()})))",
    ),
}


@pytest.fixture(scope="module", params=AGENTS)
def agent(request: pytest.FixtureRequest, programs: Path) -> Agent:
    if not (programs / request.param).exists():
        pytest.skip(f"{request.param} is not in {programs}; make test-agents installs it")
    return AGENTS[request.param]


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where the agents' commands lie: `HOLDFAST_TEST_AGENTS`, else where `make test-agents` installs them."""
    folder = Path(os.environ.get("HOLDFAST_TEST_AGENTS") or Path(__file__).parents[2] / ".agents")
    return folder / "node_modules" / ".bin"


class Upstream:
    """The simulated provider, keeping every request that reaches it."""

    def __init__(self, script: Scripts) -> None:
        self.provider = SimulatedProvider(scripts=script)
        self.received: list[Request] = []

    def application(self, request: Request, response: Response) -> None:
        self.received.append(request)
        self.provider.application(request, response)


class Stage:
    """A folder with an empty home, an empty work directory and a data directory for one agent at a time."""

    def __init__(self, folder: Path, programs: Path, agent: Agent) -> None:
        self.folder, self.agent = folder, agent
        self.work, self.data, self.summary = folder / "work", folder / "data", folder / "summary.json"
        self.upstream = Upstream(agent.script)
        self.environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOME": str(folder / "home"), **agent.settings}
        for directory in (self.work, folder / "home"):
            directory.mkdir(parents=True)

    def run(self, command: tuple[str, ...], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def guarded(self, *options: str) -> "Ended":
        """The agent under `holdfast run`, the real keys in the environment of the one who starts it."""
        with running_in_thread(self.upstream.application) as address:
            config = self.folder / "holdfast.yaml"
            config.write_text(
                "providers:\n"
                f"  openai: {{kind: openai, base_url: '{address.openai}', api_key: env:OPENAI_API_KEY}}\n"
                f"  anthropic: {{kind: anthropic, base_url: '{address.anthropic}', api_key: env:ANTHROPIC_API_KEY}}\n",
                "utf-8",
            )
            places = ("--config", str(config), "--data-dir", str(self.data), "--summary", str(self.summary))
            holdfast = str(Path(sys.executable).with_name("holdfast"))
            process = self.run((holdfast, "run", *places, *options, "--", *self.agent.command), self.environment | PLANTED)
        return Ended(self, process)

    def tapped(self, yaml: str = "", start: Callable[[str], tuple[tuple[str, ...], dict[str, str]]] | None = None) -> list["Sent"]:
        """The agent through a gateway with this configuration; what it sent, as it left it. start: other than as under `holdfast run`."""
        with running_in_thread(self.upstream.application) as address:
            options = options_for(address, yaml, self.folder)
            with gateway_in_thread(options, self.data) as gateway, Tap(gateway).open() as tap:
                command, environment = (start or self.started_as_in_a_run)(tap.url)
                process = self.run(command, environment)
        assert process.returncode == 0, process.stderr
        return tap.sent()

    def started_as_in_a_run(self, gateway_url: str) -> tuple[tuple[str, ...], dict[str, str]]:
        environment = child_environment(
            self.environment, gateway_url=gateway_url, key="hf-run-tapped", real_key_variables=(), secret_values=(), run_id="tapped"
        )
        return adapt(self.agent.command, environment, gateway_url=gateway_url, key="hf-run-tapped")


class Ended:
    """What a guarded agent left behind."""

    def __init__(self, stage: Stage, process: subprocess.CompletedProcess[str]) -> None:
        self.agent, self.upstream, self.process = stage.agent, stage.upstream, process
        self.folder, self.work = stage.folder, stage.work
        self.summary = msgspec.json.decode(stage.summary.read_bytes())
        events = list(JournalReader(stage.data).events())[::-1]
        self.decisions = [event for event in events if isinstance(event, Decision)]
        self.api_calls = [event for event in events if isinstance(event, ApiCall)]
        self.interactions = [event for event in events if isinstance(event, InteractionStarted)]


class Sent:
    """One request as the agent sent it."""

    def __init__(self) -> None:
        self.method, self.target, self.body = b"", b"", b""
        self.headers: list[tuple[bytes, bytes]] = []


class Tap:
    """A relay in front of the gateway that keeps what goes up, byte by byte."""

    def __init__(self, gateway: Address) -> None:
        self._target = (gateway.host, gateway.port)
        self._connections: list[bytearray] = []
        self.url = ""

    @contextmanager
    def open(self) -> Iterator["Tap"]:
        tap = self

        class Relay(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                tap._relay(self.request)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield self
            server.shutdown()

    def _relay(self, agent: socket.socket) -> None:
        kept = bytearray()
        self._connections.append(kept)
        with socket.create_connection(self._target) as gateway:
            back = threading.Thread(target=_pump, args=(gateway, agent))
            back.start()
            _pump(agent, gateway, kept)
            back.join()

    def sent(self) -> list[Sent]:
        return [request for connection in self._connections for request in _requests(bytes(connection))]


def _pump(source: socket.socket, sink: socket.socket, kept: bytearray | None = None) -> None:
    with suppress(OSError):  # either end may leave at any time
        while data := source.recv(65_536):
            if kept is not None:
                kept += data
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


class _Reader:
    """Callbacks of httptools."""

    def __init__(self) -> None:
        self.requests: list[Sent] = []
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        self.requests.append(Sent())

    def on_url(self, url: bytes) -> None:
        self.requests[-1].target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.requests[-1].headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.requests[-1].method = self.parser.get_method()

    def on_body(self, body: bytes) -> None:
        self.requests[-1].body += body


def _requests(data: bytes) -> list[Sent]:
    reader = _Reader()
    with suppress(httptools.HttpParserUpgrade):  # a WebSocket was asked for: nothing follows on this connection
        reader.parser.feed_data(data)
    return reader.requests


@pytest.fixture
def stage(tmp_path: Path, programs: Path, agent: Agent) -> Stage:
    return Stage(tmp_path, programs, agent)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, programs: Path, agent: Agent) -> Ended:
    """The agent's scripted task under a spend limit that it does not reach."""
    return Stage(tmp_path_factory.mktemp(agent.program), programs, agent).guarded("--timeout", "60", "--cost-limit", "5")
