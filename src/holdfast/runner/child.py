"""Runs the agent: starts it, passes signals and the terminal on to it, and ends it with all its descendants."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from holdfast.clock import MILLISECOND, SECOND, Clock, Timer
from holdfast.errors import CannotStart
from holdfast.events.run import EndReason
from holdfast.runner.kernel import adopting_orphans
from holdfast.runner.processes import Family, children, send
from holdfast.runner.terminal import Terminal

StopReason = Literal["limit", "killed"]

EXIT_CODES: dict[EndReason, int] = {"limit": 122, "killed": 123, "timeout": 124}
"""What `holdfast run` exits with when it ended the agent itself; otherwise with the agent's own code, 128 + N after signal N."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
_RECHECK_NS = 50 * MILLISECOND


class ChildOptions(Struct, frozen=True, kw_only=True):
    """timeout_ns: how long the agent may run, > 0; None: no limit. grace_ns: from TERM to KILL, and from KILL to giving up."""

    timeout_ns: int | None = None
    grace_ns: int = 5 * SECOND


class Ended(Struct, frozen=True, kw_only=True):
    """How a run ended. survivors: processes that even KILL did not end (of another user, or stuck in the kernel)."""

    exit_code: int
    reason: EndReason
    survivors: tuple[int, ...] = ()


async def run_child(
    command: Sequence[str], environment: Mapping[str, str], options: ChildOptions, clock: Clock, stop: asyncio.Future[StopReason]
) -> Ended:
    """Run a command with this process's stdin, stdout and stderr until it and all its descendants have ended.

    A result of `stop`, the time-out, or SIGINT or SIGTERM twice end it: TERM, then KILL; the first of each signal is passed on.
    What the agent leaves running when it exits by itself is ended in the same way. Cancelled, it kills what it started.
    Raises CannotStart. Must run in the main thread, in a process that gets no other children meanwhile.

    If this process is killed (SIGKILL), the agent lives on but cannot spend: its gateway and the meaning of its key went with it.
    Out of reach without adopted orphans (not Linux): descendants that left the agent's group and lost their parent.
    """
    with adopting_orphans() as adopting, contextlib.closing(Terminal()) as terminal:
        supervision = _Supervision(options, clock, terminal, stop)
        strangers = children(os.getpid()) if adopting else frozenset()
        with _signal_handlers(supervision):
            try:
                supervision.begin(Family(_start(command, environment), adopting, strangers))
                return await asyncio.shield(supervision.ended)
            except asyncio.CancelledError:
                supervision.kill()
                await supervision.ended
                raise
            finally:
                supervision.close()


def _start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """The process id of the started command, leader of a process group of its own."""
    try:
        return os.posix_spawnp(command[0], tuple(command), environment, setpgroup=0, setsigdef=(signal.SIGPIPE, signal.SIGXFSZ))
    except (FileNotFoundError, NotADirectoryError):
        raise CannotStart(f"there is no command {command[0]!r}; check its name and PATH", 127) from None
    except OSError as error:
        raise CannotStart(f"{command[0]!r} cannot be run: {error.strerror}; is it an executable file?", 126) from None


@contextlib.contextmanager
def _signal_handlers(supervision: "_Supervision") -> Iterator[None]:
    """Route signals to the supervision; those that this process was told to ignore (nohup, `&` in a script) stay ignored."""
    loop = asyncio.get_running_loop()
    callbacks: dict[signal.Signals, Callable[[], None]] = {
        number: (lambda number=number: supervision.received(number))  # type: ignore[misc]  # mypy cannot infer a default in a lambda
        for number in _FORWARDED
    }
    callbacks[signal.SIGCONT] = supervision.resume
    before = {number: signal.getsignal(number) for number in (*callbacks, signal.SIGCHLD)}
    routed = [number for number in callbacks if before[number] is not signal.SIG_IGN]
    for number in routed:
        loop.add_signal_handler(number, callbacks[number])
    # uvloop keeps SIGCHLD from add_signal_handler; the handlers above make either loop wake up for this one.
    signal.signal(signal.SIGCHLD, lambda *_: loop.call_soon_threadsafe(supervision.check))
    try:
        yield
    finally:
        for number in routed:
            loop.remove_signal_handler(number)
        for number in (*routed, signal.SIGCHLD):
            signal.signal(number, before[number])


class _Supervision:
    """One agent from start to end; every method is a callback of the event loop."""

    def __init__(self, options: ChildOptions, clock: Clock, terminal: Terminal, stop: asyncio.Future[StopReason]) -> None:
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._options = options
        self._clock = clock
        self._terminal = terminal
        self._stop = stop
        self._family: Family
        self._phase: Literal["running", "terminating", "killing"] = "running"
        self._status: int | None = None  # what waitpid said about the agent's end
        self._reason: EndReason | None = None
        self._interrupts = 0
        self._deadline: Timer | None = None
        self._recheck: Timer | None = None

    def begin(self, family: Family) -> None:
        """Take charge of a family that has just been started."""
        self._family = family
        if self._terminal.interactive:
            self._terminal.lend(family.agent)
        if self._options.timeout_ns is not None:
            self._deadline = self._clock.call_later(self._options.timeout_ns, lambda: self._terminate("timeout"))
        self._stop.add_done_callback(self._stop_asked)
        self.check()  # the agent may have ended before SIGCHLD was listened to

    def close(self) -> None:
        """Stop listening, also to the SIGCHLD that a command leaves which could not be started."""
        self.ended.cancel()
        self._stop.remove_done_callback(self._stop_asked)
        self._set_deadline(None)
        self._set_recheck(None)

    def received(self, number: signal.Signals) -> None:
        """A signal was sent to this process."""
        if self.ended.done():
            return
        if number in (signal.SIGINT, signal.SIGTERM):
            self._interrupts += 1
        if self._interrupts > 1:
            self.kill()
        else:
            send(-self._family.agent, number)

    def resume(self) -> None:
        """This process goes on after a stop, or was put into the foreground."""
        if self._status is None and not self.ended.done():
            if self._terminal.interactive:
                self._terminal.lend(self._family.agent)
            send(-self._family.agent, signal.SIGCONT)

    def check(self) -> None:
        """Something may have happened to the family."""
        if self.ended.done():
            return
        self._wait_for_agent()
        self._family.reap_adopted()
        if self._status is None and self._phase == "running":
            return
        left = self._family.members()
        if not left:
            self._finish()
        elif self._phase == "running":
            self._terminate(self._natural_reason())
        else:
            if self._phase == "killing":
                self._family.signal(signal.SIGKILL)  # also what was forked since the last time
            self._check_again()

    def _wait_for_agent(self) -> None:
        while self._status is None:
            pid, status = os.waitpid(self._family.agent, os.WNOHANG | os.WUNTRACED)
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                self._suspend(os.WSTOPSIG(status))
            else:
                self._status = status
                self._terminal.take_back(restore_modes=self._reason is not None or os.WIFSIGNALED(status))

    def _suspend(self, number: int) -> None:
        """The agent was stopped: lend it the terminal if that is what it wants, else stop with it as one job (Ctrl-Z)."""
        if number in (signal.SIGTTIN, signal.SIGTTOU) and self._terminal.lend(self._family.agent):
            send(-self._family.agent, signal.SIGCONT)
        elif self._phase == "running" and (self._terminal.lent or (self._terminal.exists and number != signal.SIGSTOP)):
            self._terminal.take_back()
            os.killpg(0, signal.SIGTSTP)  # has no effect where no shell could continue this process: then the agent goes on at once
            self.resume()

    def _stop_asked(self, stop: asyncio.Future[StopReason]) -> None:
        if not stop.cancelled():
            self._terminate(stop.result())

    def _terminate(self, reason: EndReason) -> None:
        if self._phase != "running" or self.ended.done():
            return
        self._reason = reason
        self._phase = "terminating"
        self._family.signal(signal.SIGTERM)
        self._family.signal(signal.SIGCONT)  # a stopped process acts on TERM only when it goes on
        self._set_deadline(self.kill)
        self._check_again()

    def kill(self) -> None:
        """End the family at once."""
        if self._phase == "killing" or self.ended.done():
            return
        self._phase = "killing"
        self._set_deadline(self._finish)
        self._family.signal(signal.SIGKILL)
        self._check_again()

    def _finish(self) -> None:
        """Nobody is left, or nobody that can be killed."""
        if self.ended.done():
            return
        reason = self._reason or self._natural_reason()
        code = EXIT_CODES.get(reason)
        if code is None:
            code = 128 + signal.SIGKILL if self._status is None else _exit_code(self._status)
        self.ended.set_result(Ended(exit_code=code, reason=reason, survivors=tuple(sorted(self._family.members()))))

    def _natural_reason(self) -> EndReason:
        """Why the agent ended when nothing here ended it; a stop that is decided but not yet carried out counts."""
        if self._stop.done() and not self._stop.cancelled():
            return self._stop.result()
        return "signal" if self._status is None or os.WIFSIGNALED(self._status) else "exited"

    def _set_deadline(self, then: Callable[[], None] | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if then is None else self._clock.call_later(self._options.grace_ns, then)

    def _check_again(self) -> None:
        """Ends of adopted processes are announced by SIGCHLD; those of others (not Linux) are not."""
        self._set_recheck(self._clock.call_later(_RECHECK_NS, self.check))

    def _set_recheck(self, timer: Timer | None) -> None:
        if self._recheck is not None:
            self._recheck.cancel()
        self._recheck = timer


def _exit_code(status: int) -> int:
    """What a shell makes of a wait status."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
