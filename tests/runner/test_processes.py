"""Who belongs to the family: every descendant, however deep, and nobody else."""

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from holdfast.runner.processes import Process, children, descendants, process_table

# Process 1 is the root of all; every other has an older one for its parent.
tables = st.lists(st.integers(0, 1_000), max_size=40).map(
    lambda parents: [Process(pid=2 + i, parent=1 + parent % (i + 1), group=0) for i, parent in enumerate(parents)]
)


def ancestors(table: list[Process], pid: int) -> list[int]:
    parents = {process.pid: process.parent for process in table}
    chain = [pid]
    while chain[-1] in parents:
        chain.append(parents[chain[-1]])
    return chain


@given(table=tables, root=st.integers(1, 40))
def test_a_process_is_a_descendant_when_its_parents_lead_to_the_root(table: list[Process], root: int) -> None:
    found = descendants(table, {root})
    assert found == {root} | {process.pid for process in table if root in ancestors(table, process.pid)}


@given(table=tables, excluded=st.sets(st.integers(2, 40), max_size=5))
def test_nobody_below_an_excluded_process_is_found(table: list[Process], excluded: set[int]) -> None:
    for pid in descendants(table, {1}, excluded):
        assert not excluded & set(ancestors(table, pid))


@given(pids=st.lists(st.integers(1, 5), min_size=2, max_size=10))
def test_a_table_read_while_ids_were_reused_does_not_loop(pids: list[int]) -> None:
    circle = [Process(pid=pid, parent=parent, group=0) for pid, parent in zip(pids, [*pids[1:], pids[0]], strict=True)]
    assert descendants(circle, {pids[0]}) <= {*pids}


def test_the_systems_own_table_holds_this_process_and_its_child() -> None:
    program = "(a) b) c"  # a name with brackets and spaces, as /proc/PID/stat shows it unescaped
    rename = (
        f"import ctypes, sys; sys.platform == 'linux' and ctypes.CDLL(None).prctl(15, {program.encode()!r}); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-ISc", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        child.stdout.readline()
        table = {process.pid: process for process in process_table()}
        assert table[child.pid] == Process(pid=child.pid, parent=os.getpid(), group=child.pid)
        assert child.pid in children(os.getpid())
        assert table[os.getpid()].group == os.getpgrp()
        child.communicate(b"\n")
