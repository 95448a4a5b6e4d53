"""Other gateways, each installed apart under `.peers/`: where they come from, and one process of each in front of an upstream.

`python bench/peer_programs.py` installs what can be (`make peers` also asks for Debian's nginx and HAProxy). What is not there is
missing by name and reason, never an error. Versions are pinned, so that figures of two days compare.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar, NamedTuple

import programs

FOLDER = Path(os.environ.get("HOLDFAST_PEERS") or Path(__file__).parent.parent / ".peers")
KEY = "sk-bench"
"""What callers send to those that check a key."""

UPSTREAM_KEY = "sk-upstream"
MODEL = "gpt-4o-mini"
MB = 1_000_000


class Started(NamedTuple):
    """A gateway that was started: where it answers, which process (with its children) is measured, and what a call to it looks like."""

    port: int
    pid: int
    path: str = "/v1/chat/completions"
    model: str = MODEL
    key: str = KEY
    headers: str = ""


class Peer:
    """One gateway. name: as printed."""

    name: ClassVar[str]

    def missing(self) -> str:
        """Why it cannot be started here; "" when it can."""
        raise NotImplementedError

    def version(self) -> str:
        raise NotImplementedError

    def size(self) -> int:
        """Bytes that its installation takes, its dependencies included, an interpreter not."""
        raise NotImplementedError

    def start(self, upstream: int) -> AbstractContextManager[Started]:
        """One process of it in front of an upstream; not waited for."""
        raise NotImplementedError


class Holdfast(Peer):
    name = "Holdfast"

    def missing(self) -> str:
        return ""

    def version(self) -> str:
        try:
            loop = f"uvloop {distribution('uvloop').version}"
        except PackageNotFoundError:
            loop = "without uvloop"
        return f"{distribution('holdfast').version}, {loop}"

    def size(self) -> int:
        package = Path(__file__).parent.parent / "src"  # installed as it lies here
        return _sizes(package) + sum(_size_of(name) for name in _required("holdfast") | {"uvloop"})

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        with programs.holdfast(upstream) as (port, pid, _):
            yield Started(port, pid, key="bench")


class Nginx(Peer):
    name = "nginx"

    def missing(self) -> str:
        return "" if programs.nginx_program() else "nginx is not installed (Debian package nginx-light)"

    def version(self) -> str:
        return _said([str(programs.nginx_program()), "-v"], r"nginx/(\S+)")

    def size(self) -> int:
        return _debian_size("nginx", "nginx-common", "nginx-light", "nginx-core")

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        with programs.nginx(upstream) as (port, pid):
            yield Started(port, pid)


_HAPROXY = """\
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  http-reuse always
frontend calls
  bind 127.0.0.1:{port}
  default_backend model
backend model
  server one 127.0.0.1:{upstream}
"""


class HAProxy(Peer):
    name = "HAProxy"

    def missing(self) -> str:
        return "" if shutil.which("haproxy") else "haproxy is not installed (Debian package haproxy)"

    def version(self) -> str:
        return _said(["haproxy", "-v"], r"version (\S+)")

    def size(self) -> int:
        return _debian_size("haproxy")

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        port = programs.free_port()
        with ExitStack() as stack:
            file = stack.enter_context(_file("haproxy.cfg", _HAPROXY.format(port=port, upstream=upstream)))
            started = stack.enter_context(programs.process(["haproxy", "-db", "-q", "-f", str(file)], silent=True))
            yield Started(port, started.pid)


class Python(Peer):
    """Installed from PyPI into a virtual environment of its own. requirement: what pip is asked for."""

    package: ClassVar[str]
    requirement: ClassVar[str]

    @property
    def folder(self) -> Path:
        return FOLDER / self.package

    def missing(self) -> str:
        return "" if self._information() else f"{self.requirement} is not installed under {FOLDER.name}/ (make peers)"

    def version(self) -> str:
        (information,) = self._information()
        return information.name.removesuffix(".dist-info").partition("-")[2]

    def size(self) -> int:
        tools = {"pip", "setuptools", "pkg_resources", "_distutils_hack"}
        return sum(_sizes(part) for part in self._packages().iterdir() if part.name.partition("-")[0] not in tools)

    def install(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
        pip = [str(self.folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--only-binary", ":all:", self.requirement], check=True)

    def _packages(self) -> Path:
        return next((self.folder / "lib").glob("python*")) / "site-packages"

    def _information(self) -> list[Path]:
        return list(self.folder.glob(f"lib/python*/site-packages/{self.package}-*.dist-info"))


class LiteLLM(Python):
    """Its proxy, one worker, with a master key that every call has to send; a database of its own it does not get."""

    name = "LiteLLM"
    package = "litellm"
    requirement = "litellm[proxy]==1.106.12"

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        with self._proxy(upstream, MODEL, {}) as started:
            yield started

    @contextmanager
    def budgeted(self, provider: int, model: str, usd_per_day: float, prices: Mapping[str, float]) -> Iterator[int]:
        """The port of one whose model may cost so much a day."""
        with self._proxy(provider, model, {"max_budget": usd_per_day, "budget_duration": "1d", **prices}) as started:
            programs.wait_for(started.port, "/health/liveliness", 120)
            yield started.port

    @contextmanager
    def _proxy(self, upstream: int, model: str, more: Mapping[str, object]) -> Iterator[Started]:
        target = {"model": f"openai/{model}", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": UPSTREAM_KEY, **more}
        settings = {
            "model_list": [{"model_name": model, "litellm_params": target}],
            "general_settings": {"master_key": KEY},
            "litellm_settings": {"telemetry": False, "num_retries": 0},
        }
        port = programs.free_port()
        environment = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
        with _file("litellm.yaml", json.dumps(settings)) as file:  # JSON is YAML
            command = [str(self.folder / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1", "--port", str(port)]
            with programs.process([*command, "--num_workers", "1"], environment, silent=True) as started:
                yield Started(port, started.pid, model=model)


_TENSORZERO = """\
import sys, threading
from tensorzero import patch_openai_client
class Client: base_url = ""
client = patch_openai_client(Client(), config_file=sys.argv[1], async_setup=False)
print(client.base_url, flush=True)
threading.Event().wait()
"""
_TENSORZERO_CONFIG = """\
[gateway]
observability.enabled = false
[models.bench]
routing = ["upstream"]
[models.bench.providers.upstream]
type = "openai"
model_name = "{model}"
api_base = "http://127.0.0.1:{upstream}/v1/"
api_key_location = "env::OPENAI_API_KEY"
"""


class TensorZero(Python):
    """The gateway that its Python package carries, embedded in a process that does nothing else; it checks no key."""

    name = "TensorZero"
    package = "tensorzero"
    requirement = "tensorzero==2026.6.0"

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        with _file("tensorzero.toml", _TENSORZERO_CONFIG.format(model=MODEL, upstream=upstream)) as file:
            command = [str(self.folder / "bin" / "python"), "-W", "ignore", "-c", _TENSORZERO, str(file)]
            environment = os.environ | {"OPENAI_API_KEY": UPSTREAM_KEY, "RUST_LOG": "error"}
            with programs.process(command, environment) as started:
                assert started.stdout is not None
                address = re.search(rb":(\d+)(/\S*)?", started.stdout.readline())
                if address is None:
                    raise RuntimeError("TensorZero named no address")
                path = (address[2] or b"").decode().rstrip("/") + "/chat/completions"
                yield Started(int(address[1]), started.pid, path=path, model="tensorzero::model_name::bench")


class Portkey(Peer):
    """The open-source gateway from the npm registry; it checks no key and is told the provider by headers."""

    name = "Portkey"
    requirement = "@portkey-ai/gateway@1.15.2"
    overrides: ClassVar[Mapping[str, str]] = {"@hono/node-server": "1.13.8"}
    """The newest that 1.15.2 allows answers every stream with 500: headers of a fetched response became immutable there."""

    @property
    def folder(self) -> Path:
        return FOLDER / "portkey"

    def _package(self) -> Path:
        return self.folder / "node_modules" / "@portkey-ai" / "gateway"

    def missing(self) -> str:
        if not shutil.which("node"):
            return "node is not installed"
        return "" if self._package().exists() else f"{self.requirement} is not installed under {FOLDER.name}/ (make peers)"

    def version(self) -> str:
        found: str = json.loads((self._package() / "package.json").read_text())["version"]
        return found

    def size(self) -> int:
        return _sizes(self.folder / "node_modules")

    def install(self) -> None:
        if npm := shutil.which("npm"):
            package, _, version = self.requirement.rpartition("@")
            asked = {"dependencies": {package: version}, "overrides": self.overrides}
            self.folder.mkdir(exist_ok=True)
            (self.folder / "package.json").write_text(json.dumps(asked))
            options = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            subprocess.run([npm, "install", "--prefix", str(self.folder), *options], check=True)

    @contextmanager
    def start(self, upstream: int) -> Iterator[Started]:
        port = programs.free_port()
        program = str(self._package() / "build" / "start-server.js")
        environment = os.environ | {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}
        headers = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{upstream}/v1\r\n"
        with programs.process(["node", program, f"--port={port}", "--headless"], environment, silent=True) as started:
            yield Started(port, started.pid, key=UPSTREAM_KEY, headers=headers)


PEERS: tuple[Peer, ...] = (Holdfast(), Nginx(), HAProxy(), TensorZero(), Portkey(), LiteLLM())


def install() -> None:
    """What comes from PyPI and npm, as far as it is not there yet; what fails is named and left out."""
    FOLDER.mkdir(exist_ok=True)
    for peer in PEERS:
        if isinstance(peer, Python | Portkey) and peer.missing():
            try:
                peer.install()
            except (OSError, subprocess.CalledProcessError) as error:
                print(f"{peer.name} could not be installed: {error}")
        print(f"{peer.name}: {peer.missing() or peer.version()}")


@contextmanager
def _file(name: str, text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_text(text)
        yield file


def _said(command: list[str], pattern: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def _debian_size(*packages: str) -> int:
    """Of those among the packages that are installed, without what they depend on."""
    query = ["dpkg-query", "-W", "-f", "${Status} ${Installed-Size}\n", *packages]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return sum(int(line.split()[-1]) * 1024 for line in done.stdout.splitlines() if " installed " in line)


def _sizes(path: Path) -> int:
    files = [path] if path.is_file() else (file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files if file.suffix != ".pyc")


def _required(name: str) -> set[str]:
    """The packages that an installed one needs, all the way down, without extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for line in distribution(waiting.pop()).requires or ():
            needed = re.split(r"[^A-Za-z0-9_.-]", line)[0]
            if "extra ==" not in line and needed not in found and _installed(needed):
                found.add(needed)
                waiting.append(needed)
    return found


def _installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def _size_of(name: str) -> int:
    if not _installed(name):
        return 0
    files = distribution(name).files or ()
    return sum(_sizes(Path(str(file.locate()))) for file in files if Path(str(file.locate())).is_file())


if __name__ == "__main__":
    install()
