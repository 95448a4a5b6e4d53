"""Fixtures that tests of every layer use."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import hypothesis
import pytest

from holdfast.policy.history import OwnPlaces, Places
from holdfast.shared.conversations import SharedPlaces

hypothesis.settings.register_profile("house", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session", autouse=True)
def interrupts_reach_what_tests_start() -> None:
    """Jobs that a script starts with `&` ignore INT and QUIT, and so would everything that tests start and interrupt."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published real data: `HOLDFAST_SHARED_DATA`, else `../shared/data` beside the checkout. Skips where it is missing."""
    folder = Path(os.environ.get("HOLDFAST_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"real data is not here: {folder} (set HOLDFAST_SHARED_DATA)")
    return folder


@pytest.fixture(scope="module", params=["one process", "several processes"])
def places_of_workers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., list[Places]]]:
    """Makes what several workers know of conversations: the same memory in one process, or one shared file, opened by each of them.

    Takes the number of workers and the capacity; those made before are closed.
    """
    folder, numbers = tmp_path_factory.mktemp("places"), count()

    def make(workers: int = 1, capacity: int = 1_000) -> list[Places]:
        opened.close()
        if request.param == "one process":
            return [OwnPlaces(capacity)] * workers
        file = folder / f"conversations-{next(numbers)}"
        opened.callback(file.unlink)
        return [_opened(file, capacity) for _ in range(workers)]

    def _opened(file: Path, capacity: int) -> Places:
        places = SharedPlaces(file, capacity)
        opened.callback(places.close)
        return places

    with ExitStack() as opened:
        yield make


class PostgresqlServer:
    """A real server for the length of the tests, on a free port of loopback; its programs are the machine's."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._databases = 0
        # The server does not run as root: then the user that its package makes runs it.
        self._as: tuple[str, ...] = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups") if os.geteuid() == 0 else ()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        if self._as:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "--auth=trust", "--username=holdfast", "--no-sync", "--encoding=UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c shared_buffers=16MB"
        self._run("pg_ctl", "start", "--wait", "--silent", f"--log={self._data.parent}/log", f"--options={settings}")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def new_database(self) -> str:
        """The URL of an empty one."""
        self._databases += 1
        name = f"test_{os.getpid()}_{self._databases}"
        server = ("--host=127.0.0.1", f"--port={self.port}", "--username=holdfast")
        subprocess.run([self._programs / "createdb", *server, "--template=template0", name], check=True)
        return f"postgresql://holdfast@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, str(self._programs / program), f"--pgdata={self._data}", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """Skips where PostgreSQL's server is not installed (Debian: the package postgresql)."""
    found = shutil.which("initdb")
    installed = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not installed or not (installed[-1] / "createdb").exists():
        pytest.skip("PostgreSQL's server is not installed")
    with tempfile.TemporaryDirectory(prefix="holdfast-postgresql-") as folder:  # pytest's own folders are closed to other users
        server = PostgresqlServer(installed[-1], Path(folder))
        yield server
        server.stop()
