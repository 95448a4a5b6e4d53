"""The promise of the runner, attacked with real processes: exit codes, signals, and nothing left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.clock import MILLISECOND, SECOND
from holdfast.errors import CannotStart
from holdfast.runner import processes
from holdfast.runner.child import ChildOptions, Ended, StopReason
from holdfast.runner.processes import children

HALF_A_MINUTE = ChildOptions(timeout_ns=30 * SECOND, grace_ns=5 * SECOND)
WAIT_FOREVER = "signal.pause()"
IGNORE_TERM = 'signal.signal(signal.SIGTERM, lambda *_: say("ignored"))\nsay("ready")\nwhile True: signal.pause()'
# A daemon by the book: fork, new session, fork again; then the program of the test.
DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {daemon}
        os._exit(0)
    os._exit(0)
os.wait()
"""

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="daemons are found through the adoption of orphans")


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_agents_own_exit_code_is_passed_on(guarded, code: int) -> None:
    assert guarded.run(f"sys.exit({code})") == Ended(exit_code=code, reason="exited")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_death_by_a_signal_is_128_and_the_signal(guarded, number: signal.Signals) -> None:
    assert guarded.run(f"os.kill(os.getpid(), {int(number)})") == Ended(exit_code=128 + number, reason="signal")


def test_a_command_that_does_not_exist_is_127(guarded) -> None:
    with pytest.raises(CannotStart, match="no command 'no-such-agent'") as raised:
        run_command(guarded, ["no-such-agent"])
    assert raised.value.exit_code == 127


def test_a_file_without_permission_to_run_and_a_folder_are_126(guarded, tmp_path: Path) -> None:
    script = tmp_path / "agent"
    script.write_text("#!/bin/sh\n")
    for command in (script, tmp_path):
        with pytest.raises(CannotStart, match="cannot be run") as raised:
            run_command(guarded, [str(command)])
        assert raised.value.exit_code == 126


def run_command(guarded, command: list[str]) -> Ended:
    """An error of the run itself instead of a group with one."""
    try:
        return guarded.run(command)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


def test_the_time_limit_ends_the_agent_with_124(guarded, ear) -> None:
    async def time_passes() -> None:
        await ear.line()
        guarded.clock.advance(30 * SECOND - 1)
        await asyncio.sleep(0)
        assert not guarded.stop.done()
        guarded.clock.advance(1)

    ended = guarded.run(f"say('ready')\n{WAIT_FOREVER}", time_passes, options=HALF_A_MINUTE)
    assert ended == Ended(exit_code=124, reason="timeout")
    assert ear.rest() == []


def test_the_time_limit_holds_on_the_machines_own_clock(guarded, ear) -> None:
    ended = guarded.run(WAIT_FOREVER, options=ChildOptions(timeout_ns=50 * MILLISECOND), real_time=True)
    assert ended == Ended(exit_code=124, reason="timeout")
    assert ear.rest() == []


def test_an_agent_that_ends_before_the_limit_is_not_touched(guarded, ear) -> None:
    assert guarded.run("say('done')", options=HALF_A_MINUTE) == Ended(exit_code=0, reason="exited")
    assert ear.rest() == ["done"]
    assert guarded.clock.pending == 0


@pytest.mark.parametrize(("reason", "code"), [("limit", 122), ("killed", 123)])
def test_a_stop_ends_the_agent_with_its_own_exit_code(guarded, ear, reason: StopReason, code: int) -> None:
    async def stop() -> None:
        await ear.line()
        guarded.stop.set_result(reason)

    # The agent answers TERM with an exit code of its own; what ended it counts.
    program = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\nsay('ready')\n{WAIT_FOREVER}"
    assert guarded.run(program, stop) == Ended(exit_code=code, reason=reason)


@only_linux
def test_a_stop_counts_although_the_agent_gave_up_at_the_same_moment(guarded, ear) -> None:
    async def refuse() -> None:
        agent = int(await ear.line())
        os.kill(agent, signal.SIGUSR1)
        os.waitid(os.P_PID, agent, os.WEXITED | os.WNOWAIT)  # its end is known to this process, but not yet to the runner
        guarded.stop.set_result("limit")

    program = f"signal.signal(signal.SIGUSR1, lambda *_: sys.exit(1))\nsay(str(os.getpid()))\n{WAIT_FOREVER}"
    assert guarded.run(program, refuse) == Ended(exit_code=122, reason="limit")


def test_an_agent_that_ignores_term_is_killed_after_the_grace_and_not_before(guarded, ear) -> None:
    async def time_passes() -> None:
        assert await ear.line() == "ready"
        guarded.clock.advance(30 * SECOND)
        assert await ear.line() == "ignored"
        guarded.clock.advance(5 * SECOND - 1)
        os.kill(next(iter(children(os.getpid()))), signal.SIGTERM)
        assert await ear.line() == "ignored"  # still alive to say so
        guarded.clock.advance(1)

    assert guarded.run(IGNORE_TERM, time_passes, options=HALF_A_MINUTE) == Ended(exit_code=124, reason="timeout")
    assert ear.rest() == []


@only_linux
def test_a_stopped_agent_is_ended_all_the_same(guarded, ear) -> None:
    async def stop() -> None:
        state = Path(f"/proc/{await ear.line()}/stat")
        while state.read_text().rpartition(") ")[2][0] != "T":  # not by waitid: the supervision may have taken that news already
            os.sched_yield()
        guarded.stop.set_result("killed")

    ended = guarded.run("say(str(os.getpid()))\nos.kill(os.getpid(), signal.SIGSTOP)", stop)
    assert ended == Ended(exit_code=123, reason="killed")


def test_term_reaches_every_process_of_the_group_once(guarded, ear) -> None:
    program = """
for _ in range(3):
    if os.fork() == 0:
        break
signal.signal(signal.SIGTERM, lambda *_: (say("term"), os._exit(0)))
say("ready")
while True: signal.pause()
"""

    async def stop() -> None:
        for _ in range(4):
            await ear.line()
        guarded.stop.set_result("limit")

    assert guarded.run(program, stop).exit_code == 122
    assert ear.rest() == ["term"] * 4


def test_grandchildren_that_ignore_term_are_killed(guarded, ear) -> None:
    async def stop() -> None:
        for _ in range(8):
            assert await ear.line() == "ready"
        guarded.stop.set_result("limit")
        while guarded.clock.pending == 0:
            await asyncio.sleep(0)
        for _ in range(8):
            assert await ear.line() == "ignored"
        guarded.clock.advance(5 * SECOND)

    assert guarded.run("os.fork(); os.fork(); os.fork()\n" + IGNORE_TERM, stop) == Ended(exit_code=122, reason="limit")
    assert ear.rest() == []


@only_linux
def test_a_daemon_in_its_own_session_that_ignores_term_is_killed(guarded, ear) -> None:
    async def stop() -> None:
        assert await ear.line() == "ready"
        guarded.stop.set_result("limit")
        assert await ear.line() == "ignored"
        guarded.clock.advance(5 * SECOND)

    program = DAEMON.format(daemon=IGNORE_TERM.replace("\n", "\n        ")) + WAIT_FOREVER
    assert guarded.run(program, stop) == Ended(exit_code=122, reason="limit")
    assert ear.rest() == []


@only_linux
def test_what_a_dying_daemon_forks_is_killed_too(guarded, ear) -> None:
    daemon = """
        def breed(*_):
            if os.fork() == 0:
                os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN); say("born")
            while True: signal.pause()
        signal.signal(signal.SIGTERM, breed)
        say("ready")
        while True: signal.pause()
"""

    async def stop() -> None:
        assert await ear.line() == "ready"
        guarded.stop.set_result("killed")
        assert await ear.line() == "born"
        guarded.clock.advance(5 * SECOND)

    assert guarded.run(DAEMON.format(daemon=daemon) + WAIT_FOREVER, stop) == Ended(exit_code=123, reason="killed")
    assert ear.rest() == []


@only_linux
def test_what_is_forked_behind_the_back_of_the_kill_is_found_by_the_next(guarded, ear, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen: set[int] = set()
    real_table = processes.process_table
    monkeypatch.setattr(processes, "process_table", lambda: [process for process in real_table() if process.pid not in unseen])

    async def stop() -> None:
        daemon = int(await ear.line())
        guarded.stop.set_result("killed")
        while guarded.clock.pending == 0:
            await asyncio.sleep(0)
        unseen.add(daemon)  # as if it were forked just after the table was read
        guarded.clock.advance(5 * SECOND)
        unseen.clear()

    program = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + DAEMON.format(daemon=f"say(str(os.getpid())); {WAIT_FOREVER}")
    assert guarded.run(program + WAIT_FOREVER, stop) == Ended(exit_code=123, reason="killed")
    assert ear.rest() == []


@only_linux
def test_what_the_agent_leaves_running_is_ended_and_its_exit_code_kept(guarded, ear) -> None:
    program = DAEMON.format(daemon=f"say('ready'); {WAIT_FOREVER}") + "sys.exit(5)"
    assert guarded.run(program) == Ended(exit_code=5, reason="exited")
    assert ear.rest() in (["ready"], [])


def test_no_zombie_and_no_signal_handler_is_left(guarded) -> None:
    numbers = (signal.SIGCHLD, signal.SIGCONT, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = children(os.getpid()), [signal.getsignal(number) for number in numbers]
    guarded.run("os.fork(); os.fork()")
    assert (children(os.getpid()), [signal.getsignal(number) for number in numbers]) == before


@only_linux
def test_adopted_processes_are_reaped_while_the_agent_still_runs(guarded, ear) -> None:
    async def look() -> None:
        daemon = int(await ear.line())
        while daemon in children(os.getpid()):
            await asyncio.sleep(0)
        assert len(children(os.getpid())) == 1
        guarded.stop.set_result("killed")

    guarded.run(DAEMON.format(daemon="say(str(os.getpid()))") + WAIT_FOREVER, look)


def test_processes_that_were_there_before_are_left_alone(guarded) -> None:
    with subprocess.Popen([sys.executable, "-ISc", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as stranger:
        guarded.run("os.fork()")
        assert stranger.poll() is None
        stranger.communicate()
        assert stranger.returncode == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH"])
def test_signals_are_passed_on_to_the_whole_group(guarded, ear, name: str) -> None:
    program = f"""
os.fork()
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the slower of the two gets when the other has ended
signal.signal(signal.{name}, lambda *_: (say("{name}"), os._exit(0)))
say("ready")
while True: signal.pause()
"""

    async def send() -> None:
        await ear.line()
        await ear.line()
        os.kill(os.getpid(), getattr(signal, name))

    assert guarded.run(program, send) == Ended(exit_code=0, reason="exited")
    assert ear.rest() == [name, name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_interrupt_kills(guarded, ear, number: signal.Signals) -> None:
    async def interrupt() -> None:
        assert await ear.line() == "ready"
        os.kill(os.getpid(), number)
        assert await ear.line() == "ignored"
        os.kill(os.getpid(), number)

    program = f"signal.signal(signal.SIGINT, lambda *_: say('ignored'))\n{IGNORE_TERM}"
    assert guarded.run(program, interrupt) == Ended(exit_code=137, reason="signal")


def test_a_signal_that_this_process_ignores_stays_ignored(guarded, ear) -> None:
    async def look() -> None:
        assert await ear.line() == "True"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        guarded.stop.set_result("killed")

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup does
    try:
        guarded.run(f"say(str(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN))\n{WAIT_FOREVER}", look)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_cancelled_it_kills_what_it_started(guarded, ear) -> None:
    class GatewayError(Exception):
        pass

    async def fail() -> None:
        assert await ear.line() == "ready"
        raise GatewayError

    with pytest.raises(BaseExceptionGroup):
        guarded.run(IGNORE_TERM, fail)
    assert ear.rest() == []


def test_stdin_and_stdout_pass_through_untouched() -> None:
    holdfast = """
import asyncio, os, sys
from holdfast.system_clock import SystemClock
from holdfast.runner.child import ChildOptions, run_child
async def main():
    stop = asyncio.get_running_loop().create_future()
    return await run_child(["cat"], os.environ, ChildOptions(), SystemClock(), stop)
sys.exit(asyncio.run(main()).exit_code)
"""
    text = bytes(range(256)) * 1000
    done = subprocess.run([sys.executable, "-c", holdfast], input=text, capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (text, b"", 0)
