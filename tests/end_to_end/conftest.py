"""The product as its users meet it: real processes in a folder of their own, before a simulated provider with a door and an account."""

import asyncio
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from holdfast.clock import SECOND
from holdfast.config import KNOWN_KEY_VARIABLES
from holdfast.http.message import Request, Response
from holdfast.system_clock import SystemClock
from holdfast.testing.simulated_provider import Address, SimulatedProvider, running_in_thread

PATIENCE_S = 30
"""Only ever waited for by a test that fails."""

HOLDFAST = (sys.executable, "-c", "from holdfast.cli import main; main()")
NO_HEADERS: Mapping[str, str] = {}
REAL_KEY = "sk-real-key-of-the-company"
INPUT_NANO, OUTPUT_NANO = 1000, 4000
"""What the simulated provider's tokens cost under `PROVIDERS`, in nano-dollars each."""

PROVIDERS = """
providers:
  openai: {{kind: openai, base_url: "{openai}", api_key: env:OPENAI_API_KEY, prices: {prices}}}
  anthropic: {{kind: anthropic, base_url: "{anthropic}", api_key: env:OPENAI_API_KEY, prices: {prices}}}
"""
PRICES = '{"unpriced-*": {per_call: 0, input_per_million: 0, output_per_million: 0}, "*": {input_per_million: 1, output_per_million: 4}}'

AGENT = """
import json, os, signal, sys, time
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

def ask(model, **more):
    "The status of one call, and what was answered; 0 without an answer."
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "What next?"}], **more}).encode()
    headers = {"authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "content-type": "application/json"}
    try:
        with urlopen(Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, headers)) as answer:
            return answer.status, answer.read(), answer.headers
    except HTTPError as error:
        return error.code, error.read(), error.headers
    except (URLError, HTTPException, OSError):
        return 0, b"", {}
"""


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of `condition`, which is asked again and again; fails when there is none."""
    clock = SystemClock()
    until = clock.monotonic_ns() + PATIENCE_S * SECOND
    pause = threading.Event()
    while not (value := condition()):
        assert clock.monotonic_ns() < until, f"never happened: {what}"
        pause.wait(0.01)
    return value


class Provider:
    """A simulated provider behind a door: a call that comes to the closed door waits there until it is opened.

    seen: every request that came. at_the_door: how many wait.
    """

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self._simulated = SimulatedProvider()
        self._waiting: list[tuple[Request, Response]] = []
        self._open = True
        self._loop: asyncio.AbstractEventLoop
        self.address: Address

    def application(self, request: Request, response: Response) -> None:
        self._loop = asyncio.get_running_loop()
        if request.path != b"/stats":
            self.seen.append(request)
            if not self._open:
                self._waiting.append((request, response))
                return
        self._simulated.application(request, response)

    @property
    def at_the_door(self) -> int:
        return len(self._waiting)

    def close_door(self) -> None:
        self._open = False

    def open_door(self) -> None:
        """Let everybody in; whoever left meanwhile is served, and billed, all the same."""
        self._open = True
        if self._waiting:
            self._loop.call_soon_threadsafe(self._let_in)

    def _let_in(self) -> None:
        waiting, self._waiting = self._waiting, []
        for request, response in waiting:
            self._simulated.application(request, response)

    def stats(self) -> Any:
        """What `GET /stats` says."""
        return ask(self.address.anthropic, "GET", "/stats").json()

    def of_model(self, model: str) -> Any:
        return self.stats()["models"].get(model, dict.fromkeys(("calls", "served", "input_tokens", "output_tokens"), 0))

    def billed(self, model: str = "") -> int:
        """Nano-dollars, for one model or all."""
        tally = self.of_model(model) if model else self.stats()["total"]
        return int(tally["input_tokens"] * INPUT_NANO + tally["output_tokens"] * OUTPUT_NANO)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(base: str, method: str, path: str, body: object = None, key: str = "", more: Mapping[str, str] = NO_HEADERS) -> Reply:
    """One request on a connection of its own; the whole answer."""
    host, port = base.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE_S)
    headers = {**more, "authorization": f"Bearer {key}"} if key else dict(more)
    if path.startswith("/v1/messages"):
        headers["anthropic-version"] = "2023-06-01"
    try:
        connection.request(method, path, body if isinstance(body, bytes | None) else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """The standard output of a command with --json."""
        return [json.loads(line) for line in self.out.splitlines()]


class Running:
    """A command that goes on, in a process group of its own. `lines`: of its standard output and error so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in ((process.stdout, self.out), (process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        with stream:
            lines.extend(iter(stream.readline, ""))

    def line(self, number: int = 0) -> str:
        """A line of the standard output, once it is there."""
        eventually(lambda: len(self.out) > number or self.gone, f"line {number} of the output; errors: {self.err}")
        assert len(self.out) > number, self.err
        return self.out[number]

    @property
    def gone(self) -> bool:
        """Whether it and every process that it started have ended: each of them holds the other end of its standard error."""
        return not any(reader.is_alive() for reader in self._readers)

    def end(self, number: int = signal.SIGTERM, *, group: bool = False) -> int:
        """Send a signal, to the whole group as a terminal does, and see everything end; the exit code."""
        if group:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        eventually(lambda: self.gone, "the end of every process")
        return code

    def close(self) -> None:
        if not self.gone:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)
            eventually(lambda: self.gone, "the end of every process")


class Up(Running):
    """A running `holdfast up`. gateway, control: base URLs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.gateway, self.control = re.findall(r"http://[0-9.]+:[0-9]+", self.line())

    def ask(self, body: object, key: str = "", path: str = "/v1/chat/completions") -> Reply:
        """One call of an agent; a `body` that is not bytes goes as JSON."""
        return ask(self.gateway, "POST", path, body, key)

    def workers(self) -> list[int]:
        """Process ids."""
        return [worker["pid"] for worker in self.state()["workers"]]

    def state(self) -> Any:
        """What the control address says of everything."""
        return ask(self.control, "GET", "/").json()

    @property
    def ready(self) -> bool:
        return ask(self.control, "GET", "/readyz").status == 200


class Site:
    """A folder in which nobody has set up anything yet, and a provider. data: Holdfast's data directory."""

    def __init__(self, folder: Path, provider: Provider, stack: ExitStack) -> None:
        self.folder = folder
        self.provider = provider
        self.data = folder / "data"
        self._stack = stack

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        strange = (*KNOWN_KEY_VARIABLES, "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "API_CALL_BUDGET_PER_HOUR", "COST_THRESHOLD_ALERT")
        kept = {name: value for name, value in os.environ.items() if name not in strange and not name.startswith("HOLDFAST_")}
        return (
            kept
            | {"HOME": str(self.folder), "NO_COLOR": "1", "HOLDFAST_DATA_DIR": str(self.data), "OPENAI_API_KEY": REAL_KEY}
            | (more or {})
        )

    def configure(self, text: str = "") -> Path:
        """A configuration file that every command finds by itself: providers that lead to the simulated one, and `text`."""
        address = self.provider.address
        file = self.folder / "holdfast.yaml"
        file.write_text(PROVIDERS.format(openai=address.openai, anthropic=address.anthropic, prices=PRICES) + text)
        return file

    def command(self, *words: str, env: dict[str, str] | None = None, via: tuple[str, ...] = HOLDFAST) -> Done:
        """Run a command to its end; then none of its processes may be left."""
        process = self._popen((*via, *words), env)
        try:
            code = process.wait(PATIENCE_S)
            return Done(code, self._rest(process.stdout), self._rest(process.stderr))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pipe in (process.stdout, process.stderr):
                pipe.close()

    @staticmethod
    def _rest(stream: Any) -> str:
        """What was written to a pipe that nobody can write to any more."""
        os.set_blocking(stream.fileno(), False)
        said = b""
        try:
            while piece := os.read(stream.fileno(), 1 << 16):
                said += piece
        except BlockingIOError:
            pytest.fail("a process of the command is left")
        return said.decode()

    def run(self, *words: str, agent: str, env: dict[str, str] | None = None, via: tuple[str, ...] = HOLDFAST) -> Done:
        """`holdfast run` around Python source that has `ask` (see AGENT)."""
        return self.command("run", *words, "--", sys.executable, "-IS", "-c", AGENT + agent, env=env, via=via)

    def start_run(self, *words: str, agent: str) -> Running:
        """As `run`, and goes on."""
        return self.start("run", *words, "--", sys.executable, "-IS", "-c", AGENT + agent)

    def start(self, *words: str, env: dict[str, str] | None = None) -> Running:
        running = Running(self._popen((*HOLDFAST, *words), env))
        self._stack.callback(running.close)
        return running

    def up(self, *words: str, env: dict[str, str] | None = None) -> Up:
        """`holdfast up` on free ports, ready."""
        started = self._popen((*HOLDFAST, "up", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", *words), env)
        self._stack.callback(self._end, started)
        up = Up(started)
        self._stack.callback(up.close)
        return up

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _popen(self, command: tuple[str, ...], env: dict[str, str] | None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def journal(self, kind: str = "") -> list[dict[str, Any]]:
        """What is on record, of one kind or all, in the order of writing."""
        lines = [line for file in sorted((self.data / "journal").glob("*.ndjson")) for line in file.read_text().splitlines()]
        events = [json.loads(line) for line in lines]
        return [event for event in events if kind in ("", event["kind"])]


@contextmanager
def _site(folder: Path) -> Iterator[Site]:
    provider = Provider()
    with running_in_thread(provider.application) as address, ExitStack() as stack:
        provider.address = address
        yield Site(folder, provider, stack)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with _site(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with _site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(name="eventually", scope="session")
def _eventually() -> Callable[[Callable[[], Any], str], Any]:
    return eventually


@pytest.fixture(name="ask", scope="session")
def _ask() -> Callable[..., Reply]:
    return ask


class Load:
    """Callers that go on and on through the official SDK, each on a connection that it keeps; `answered` so far."""

    def __init__(self, gateway: str, retries: int, streams: bool) -> None:
        self.answered = 0
        self._client = openai.OpenAI(base_url=f"{gateway}/v1", api_key="any", max_retries=retries, timeout=30)
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(8)
        self._callers: list[Future[None]] = [self._pool.submit(self._call, streams and number % 2 == 0) for number in range(8)]

    def _call(self, stream: bool) -> None:
        while not self._over.is_set():
            answer: Any = self._client.chat.completions.create(
                stream=stream, model="sim-ok", messages=[{"role": "user", "content": "Hello"}]
            )
            if stream:
                assert list(answer)[-1]
            else:
                assert answer.choices[0].message.content
            self.answered += 1

    def end(self) -> None:
        """Raises what any caller has met."""
        self._over.set()
        for caller in self._callers:
            caller.result()
        self._client.close()


@pytest.fixture
def load(eventually) -> Any:
    @contextmanager
    def calling(gateway: str, retries: int = 0, *, streams: bool = True) -> Iterator[Any]:
        load = Load(gateway, retries, streams)

        def goes_on(what: str, calls: int = 50) -> None:
            reached = load.answered + calls
            eventually(lambda: load.answered >= reached or any(caller.done() for caller in load._callers), what)

        goes_on("calls that are answered")
        try:
            yield goes_on
        finally:
            load.end()

    return calling
