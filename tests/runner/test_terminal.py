"""On a real pseudo-terminal: the agent owns it while it runs, as under a shell, and it is given back however the agent ends."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest

PATIENCE_S = 30
"""Only ever waited for by a test that fails."""

HOLDFAST = """
import asyncio, os, sys
from holdfast.system_clock import SystemClock
from holdfast.runner.child import ChildOptions, run_child

async def main():
    stop = asyncio.get_running_loop().create_future()
    options = ChildOptions(timeout_ns=int(os.environ.get("TIMEOUT_NS", 60 * 10**9)))
    return await run_child([sys.executable, "-ISc", os.environ["AGENT"]], os.environ, options, SystemClock(), stop)

def run():
    ended = asyncio.run(main())
    tty = os.open("/dev/tty", os.O_RDWR)
    print("ended", ended.exit_code, ended.reason, "in front", os.tcgetpgrp(tty) == os.getpgrp(), flush=True)
"""

# Makes the terminal this session's own, then is Holdfast itself.
LEADER = "import fcntl, os, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + HOLDFAST

# The least of a shell: one job, which it stops with, puts back in front, and waits for.
SHELL = (
    LEADER
    + """
import signal
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpgrp())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    run()
    os._exit(0)
_, status = os.waitpid(job, os.WUNTRACED)
print("shell: stopped", os.WIFSTOPPED(status) and signal.Signals(os.WSTOPSIG(status)).name, "in front", os.tcgetpgrp(0) == job, flush=True)
os.tcsetpgrp(0, os.getpgrp())
sys.stdin.readline()
os.tcsetpgrp(0, job)
os.killpg(job, signal.SIGCONT)
os.waitpid(job, 0)
"""
)

AGENT = """
import os, signal, sys
def in_front(): return os.tcgetpgrp(os.open("/dev/tty", os.O_RDWR)) == os.getpgrp()
"""


class Screen:
    """The other end of the terminal: types, and reads what appears."""

    def __init__(self, master: int) -> None:
        self._master = master
        self._shown = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def read_until(self, text: str) -> str:
        """Everything up to and including the text, which must appear."""
        while text not in self._shown:
            ready, _, _ = select.select([self._master], [], [], PATIENCE_S)
            assert ready, f"{text!r} did not appear in {self._shown!r}"
            self._shown += os.read(self._master, 4096).decode()
        before, _, self._shown = self._shown.partition(text)
        return before + text


class Session:
    """A program as the leader of a session on a terminal of its own."""

    def __init__(self) -> None:
        master, self._slave = os.openpty()
        self.screen = Screen(master)
        self._master = master
        self._leader: subprocess.Popen[bytes] | None = None

    def start(self, program: str, agent: str, *, stdout: int | None = None, **environment: str) -> None:
        out = self._slave if stdout is None else stdout
        self._leader = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=self._slave,
            stdout=out,
            stderr=self._slave,
            start_new_session=True,
            env={**os.environ, "AGENT": AGENT + agent, **environment},
        )

    def wait(self) -> int:
        assert self._leader is not None
        return self._leader.wait(PATIENCE_S)

    def close(self) -> None:
        if self._leader is not None:
            self._leader.kill()
            self._leader.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture
def session() -> Iterator[Session]:
    opened = Session()
    yield opened
    opened.close()


def test_ctrl_c_reaches_the_agent_in_front_and_the_terminal_is_given_back(session: Session) -> None:
    agent = """
signal.signal(signal.SIGINT, lambda *_: (os.write(1, b"caught"), os._exit(4)))
print("in front", in_front(), flush=True)
while True: signal.pause()
"""
    session.start(LEADER + "run()", agent)
    session.screen.read_until("in front True")
    session.screen.type("\x03")
    session.screen.read_until("caught")
    session.screen.read_until("ended 4 exited in front True")
    assert session.wait() == 0


def test_the_agent_reads_the_keyboard(session: Session) -> None:
    session.start(LEADER + "run()", 'print("name?", flush=True)\nprint("hello", input(), flush=True)')
    session.screen.read_until("name?")
    session.screen.type("Ada\n")
    session.screen.read_until("hello Ada")
    session.screen.read_until("ended 0 exited in front True")


def test_ctrl_z_stops_the_whole_job_and_it_goes_on_in_front(session: Session) -> None:
    session.start(SHELL, 'print("name?", flush=True)\nprint("hello", input(), in_front(), flush=True)')
    session.screen.read_until("name?")
    session.screen.type("\x1a")
    session.screen.read_until("shell: stopped SIGTSTP in front True")
    session.screen.type("fg\n")
    session.screen.type("Ada\n")
    session.screen.read_until("hello Ada True")
    session.screen.read_until("ended 0 exited in front True")
    assert session.wait() == 0


def test_ctrl_z_has_no_effect_where_no_shell_could_continue_the_job(session: Session) -> None:
    session.start(LEADER + "run()", 'print("name?", flush=True)\nprint("hello", input(), in_front(), flush=True)')
    session.screen.read_until("name?")
    session.screen.type("\x1a")
    session.screen.type("Ada\n")
    session.screen.read_until("hello Ada True")
    session.screen.read_until("ended 0 exited in front True")


def test_the_modes_of_the_terminal_are_restored_when_the_agent_had_to_be_ended(session: Session) -> None:
    agent = "import termios, tty\ntty.setraw(0)\nsignal.pause()"
    check = '\nimport termios\nprint("echo", bool(termios.tcgetattr(0)[3] & termios.ECHO), flush=True)'
    session.start(LEADER + "run()" + check, agent, TIMEOUT_NS="200000000")
    session.screen.read_until("ended 124 timeout in front True")
    session.screen.read_until("echo True")


def test_in_a_pipeline_the_terminal_is_lent_only_when_the_agent_reads_it(session: Session) -> None:
    agent = (
        'say = lambda *words: print(*words, file=sys.stderr, flush=True)\nsay("in front", in_front())\nsay("hello", input(), in_front())'
    )
    read, write = os.pipe()
    try:
        session.start(LEADER + "run()", agent, stdout=write)
        session.screen.read_until("in front False")
        session.screen.type("Ada\n")
        session.screen.read_until("hello Ada True")
        assert session.wait() == 0
        assert os.read(read, 4096) == b"ended 0 exited in front True\n"
    finally:
        os.close(read)
        os.close(write)


def test_ctrl_c_in_a_pipeline_is_passed_on(session: Session) -> None:
    agent = 'signal.signal(signal.SIGINT, lambda *_: os._exit(4))\nprint("ready", file=sys.stderr, flush=True)\nsignal.pause()'
    read, write = os.pipe()
    try:
        session.start(LEADER + "run()", agent, stdout=write)
        session.screen.read_until("ready")
        session.screen.type("\x03")
        assert session.wait() == 0
        assert os.read(read, 4096) == b"ended 4 exited in front True\n"
    finally:
        os.close(read)
        os.close(write)
