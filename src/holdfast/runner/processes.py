"""The processes of a run: every descendant of the agent, also those that left its group, its session or lost their parent."""

import os
import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from msgspec import Struct


class Process(Struct, frozen=True):
    """One line of the system's process table."""

    pid: int
    parent: int
    group: int


class Family:
    """The agent and its descendants.

    With `adopting` (see `kernel.adopting_orphans`) nothing gets lost: whoever loses its parent becomes a child of this process, so
    the family is everything below it but `strangers`, the children that it had before. Without, a descendant is found while its
    chain of parents leads to the agent or while it is in the agent's group.
    """

    def __init__(self, agent: int, adopting: bool, strangers: frozenset[int]) -> None:
        self.agent = agent
        self._adopting = adopting
        self._strangers = strangers

    def members(self) -> frozenset[int]:
        """Process ids of those that are left, zombies included."""
        return frozenset(process.pid for process in self._find())

    def signal(self, number: int) -> None:
        """Send a signal once to every member: to the agent's group in one step, so that no fork slips through, then to the others."""
        send(-self.agent, number)
        for process in self._find():
            if process.group != self.agent:
                send(process.pid, number)

    def reap_adopted(self) -> None:
        """Collect adopted members that ended; the agent itself is the caller's."""
        if not self._adopting:
            return
        for pid in children(os.getpid()) - self._strangers - {self.agent}:
            os.waitpid(pid, os.WNOHANG)

    def _find(self) -> list[Process]:
        table = process_table()
        found = descendants(table, {self.agent})
        if self._adopting:
            found |= descendants(table, {os.getpid()}, self._strangers) - {os.getpid()}
        return [process for process in table if process.pid in found or process.group == self.agent]


def send(target: int, number: int) -> None:
    """Send a signal to a process, or to a group as a negative id; what is gone or belongs to somebody else is passed over."""
    try:
        os.kill(target, number)
    except (ProcessLookupError, PermissionError):
        return


def children(pid: int) -> frozenset[int]:
    """Process ids of the direct children, zombies included."""
    return frozenset(process.pid for process in process_table() if process.parent == pid)


def descendants(table: Iterable[Process], roots: Collection[int], excluded: Collection[int] = ()) -> set[int]:
    """The roots and everything below them; what is below an excluded process counts only if a root is between."""
    by_parent: dict[int, list[int]] = {}
    for process in table:
        by_parent.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    pending = list(roots)
    while pending:
        pid = pending.pop()
        if pid not in found and pid not in excluded:
            found.add(pid)
            pending.extend(by_parent.get(pid, ()))
    return found


def process_table() -> list[Process]:
    """All processes of the system that this user may see."""
    return list(_from_proc() if sys.platform == "linux" else _from_ps())


def _from_proc() -> Iterable[Process]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended while we were looking
            # The command's name may hold spaces and brackets; the fields behind its last bracket are state, parent, group.
            _, parent, group = stat[stat.rindex(b")") + 2 :].split(b" ", 3)[:3]
            yield Process(int(entry.name), int(parent), int(group))


def _from_ps() -> Iterable[Process]:
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,pgid="], capture_output=True, check=True, text=True).stdout
    for line in listing.splitlines():
        pid, parent, group = line.split()
        yield Process(int(pid), int(parent), int(group))
