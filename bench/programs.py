"""Starts what is measured: the upstream, nginx and Holdfast in front of it, each a process of its own; reads their CPU and memory."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent

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


def rss_kb(pid: int) -> int:
    return next(int(line.split()[1]) for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS"))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def upstream() -> Iterator[int]:
    """Its port."""
    with _process([sys.executable, str(HERE / "upstream.py")]) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())


def nginx_program() -> str | None:
    return shutil.which("nginx") or shutil.which("/usr/sbin/nginx")


@contextmanager
def nginx(upstream_port: int) -> Iterator[tuple[int, int]]:
    """Port and process id of the worker."""
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        file = Path(folder) / "nginx.conf"
        file.write_text(_NGINX.format(folder=folder, upstream=upstream_port, port=port))
        program = nginx_program()
        assert program is not None
        with _process([program, "-c", str(file)]) as process:
            _wait_for(f"http://127.0.0.1:{port}/left")
            yield port, children(process.pid)[0]


@contextmanager
def holdfast(upstream_port: int) -> Iterator[tuple[int, int, float]]:
    """Port, process id of the worker, and seconds from the start to both addresses answering."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "holdfast.yaml"
        file.write_text(_HOLDFAST.format(upstream=upstream_port))
        command = [
            sys.executable,
            "-c",
            "from holdfast.cli import main; main()",
            "up",
            "--config",
            str(file),
            "--data-dir",
            f"{folder}/data",
        ]
        began = time.perf_counter()
        environment = os.environ | {"BENCH_KEY": "sk-upstream", "BENCH_AGENT_KEY": "bench"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
        with _process([*command, "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0"], environment) as process:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            ready = time.perf_counter() - began
            yield int(line.split("gateway http://127.0.0.1:")[1].split(",")[0]), children(process.pid)[0], ready


@contextmanager
def _process(command: list[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def _wait_for(url: str) -> None:
    for _ in range(100):
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=1).close()
            return
        time.sleep(0.05)
    raise RuntimeError(f"{url} does not answer")


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _lines(path: str) -> list[str]:
    with suppress(OSError):
        return Path(path).read_text().splitlines()
    return []
