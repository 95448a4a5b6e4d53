"""Starts what is measured: the upstream, nginx and Holdfast in front of it, each a process of its own; reads their CPU and memory."""

import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HOLDFAST = (sys.executable, "-c", "from holdfast.cli import main; main()")

_NGINX = """\
daemon off; worker_processes 1; error_log /dev/null; pid {folder}/pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_buffer_size 1m; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 100000000;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
_HOLDFAST = """\
providers:
  openai: {{kind: openai, base_url: "http://127.0.0.1:{upstream}/v1", api_key: env:BENCH_KEY}}
limits:
  - {{usd: 1000000, per: month}}
  - {{calls: 1000000000, per: hour}}
agents:
  bench:
    key: env:BENCH_AGENT_KEY
    limits:
      - {{usd: 500000, per: day, alert_at: 80%}}
      - {{usd: 1000, per: hour, scope: user}}
"""


def machine() -> str:
    """What it ran on, for the head of every report."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return f"{platform.platform()}, {os.cpu_count()} cores ({model}), Python {platform.python_version()}, load {os.getloadavg()[0]:.2f}"


def cpu_ns(pid: int) -> int:
    """CPU time that a process has used with all its threads, user and system, in nanoseconds."""
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in Path(f"/proc/{pid}/task").iterdir())


def family(pid: int) -> list[int]:
    """A process and all that it started, as far as they run."""
    found = [pid]
    for member in found:
        with suppress(OSError):
            found += children(member)
    return found


def family_cpu_ns(pid: int) -> int:
    """CPU time of a process and all that it started, threads that have ended included (those to 10 ms)."""
    total = 0
    for member in family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += max(cpu_ns(member), (int(fields[11]) + int(fields[12])) * 10**9 // os.sysconf("SC_CLK_TCK"))
    return total


def family_rss_kb(pid: int) -> int:
    return sum(rss_kb(member) for member in family(pid))


def rss_kb(pid: int) -> int:
    return next(int(line.split()[1]) for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS"))


def own_rss_kb(pid: int, shared: Path) -> int:
    """Resident memory of a process less what it maps of the files under `shared`, which have a fixed size and are others' too."""
    own, counted = 0, True
    for line in _lines(f"/proc/{pid}/smaps"):
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):  # a mapping begins: its range, its permissions, …, its file
            counted = str(shared) not in rest
        elif name == "Rss:" and counted:
            own += int(rest.split()[0])
    return own


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def upstream() -> Iterator[int]:
    """Its port."""
    with process([sys.executable, str(HERE / "upstream.py")]) as started:
        assert started.stdout is not None
        yield int(started.stdout.readline())


def nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextmanager
def nginx(upstream_port: int) -> Iterator[tuple[int, int]]:
    """Port and process id of the worker."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, upstream=upstream_port, port=port))
        program = nginx_program()
        assert program is not None
        with process([program, "-c", str(file)]) as started:
            wait_for(port, "/left")
            yield port, children(started.pid)[0]


class Up:
    """A running `holdfast up` in a session of its own. port: of its gateway."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        ports = re.findall(r"http://127\.0\.0\.1:(\d+)", line)
        if len(ports) != 2:
            raise RuntimeError(f"holdfast up did not start: {line or 'see its own words above'}")
        self.port, self._control = map(int, ports)

    @property
    def workers(self) -> list[int]:
        """Process ids."""
        found: list[int] = [worker["pid"] for worker in fetch(self._control, "/")["workers"]]
        return found

    def kill_worker(self, number: int = 0) -> None:
        """kill -9, and wait for the one that takes its place."""
        before = self.workers
        os.kill(before[number], signal.SIGKILL)
        for _ in range(3000):
            now = fetch(self._control, "/")
            if now["ready"] and before[number] not in self.workers:
                return
            time.sleep(0.01)
        raise RuntimeError("the killed worker was not replaced within 30 s")

    def kill_everything(self) -> None:
        """kill -9 for the supervisor and all its workers at once."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@contextmanager
def up(config: str, data: Path, workers: int = 1, environment: Mapping[str, str] | None = None) -> Iterator[Up]:
    """`holdfast up` on free ports, ready. config: the text of its file. data: its data directory, which need not exist."""
    file = data.with_suffix(".yaml")
    file.write_text(config)
    command = [*HOLDFAST, "up", "--config", str(file), "--data-dir", str(data), "--workers", str(workers)]
    settings = {name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")} | dict(environment or {})
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with process([*command, "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0"], settings) as started:
        yield Up(started)


@contextmanager
def holdfast(upstream_port: int) -> Iterator[tuple[int, int, float]]:
    """Port, process id of the worker, and seconds from the start to both addresses answering."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        keys = {"BENCH_KEY": "sk-upstream", "BENCH_AGENT_KEY": "bench"}
        with up(_HOLDFAST.format(upstream=upstream_port), Path(folder) / "data", environment=keys) as running:
            ready = time.perf_counter() - began
            yield running.port, running.workers[0], ready


@contextmanager
def sim() -> Iterator[int]:
    """The port of a simulated provider, a process of its own."""
    with process([*HOLDFAST, "sim", "--json"]) as started:
        assert started.stdout is not None
        yield int(json.loads(started.stdout.readline())["port"])


def fetch(port: int, path: str) -> Any:
    """What a JSON page says."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        return json.load(connection.getresponse())


@contextmanager
def process(command: list[str], environment: Mapping[str, str] | None = None, silent: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own; whatever of it is left in the end is ended. silent: what it says is thrown away."""
    said, words = (subprocess.DEVNULL, subprocess.DEVNULL) if silent else (subprocess.PIPE, None)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=words, env=environment, start_new_session=True) as started:
        try:
            yield started
        finally:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)


def wait_for(port: int, path: str, seconds: float = 10) -> None:
    """Until a page is answered; raises RuntimeError when it is not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
            return
        time.sleep(0.02)
    raise RuntimeError(f"http://127.0.0.1:{port}{path} does not answer")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return Path(path).read_text().splitlines()
    return []
