"""The living are told from the dead, whatever became of their process ids."""

import signal
import subprocess
import sys
from pathlib import Path

from holdfast.shared.presence import FOLDER, Gateway, Presence, present

HERE = Gateway(pid=1, kind="worker", address="127.0.0.1:8787", agents=("support",), releases=("v1",), started=5)
ANOTHER_PROCESS = """
import os, signal, sys
from pathlib import Path
from holdfast.shared.presence import Gateway, Presence
there = Presence(Path(sys.argv[1]), Gateway(pid=os.getpid(), kind="run", address="", agents=("a",), releases=("r",), started=1, run="r1"))
there.confirm(3)
print("ready", flush=True)
sys.stdin.read()
"""


def test_a_gateway_is_there_until_it_ends_and_tells_what_it_has_confirmed(tmp_path: Path) -> None:
    assert present(tmp_path) == []
    presence = Presence(tmp_path, HERE)
    (found,) = present(tmp_path)
    assert (found.gateway, found.confirmed) == (HERE, 0)
    presence.confirm(2**63)
    assert [each.confirmed for each in present(tmp_path)] == [2**63]
    presence.close()
    assert present(tmp_path) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_a_gateway_tells_how_many_calls_of_each_agent_wait_there(tmp_path: Path) -> None:
    presence = Presence(tmp_path, HERE)
    assert present(tmp_path)[0].waiting == {}
    for waiting in ({"support": 12, "über": 3}, {"support": 1}, {}):
        presence.tell(waiting)
        presence.confirm(4)
        (found,) = present(tmp_path)
        assert (found.gateway, found.confirmed, found.waiting) == (HERE, 4, waiting)
    presence.close()


def test_one_that_was_killed_is_not_there_and_leaves_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    ((found),) = present(tmp_path)
    assert (found.gateway.pid, found.gateway.run, found.confirmed) == (process.pid, "r1", 3)
    assert present(tmp_path) == [found]  # looking takes nothing away
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert present(tmp_path) == []
    assert list((tmp_path / FOLDER).iterdir()) == []


def test_two_of_one_process_are_two(tmp_path: Path) -> None:
    one, other = Presence(tmp_path, HERE), Presence(tmp_path, HERE)
    one.confirm(1)
    assert sorted(each.confirmed for each in present(tmp_path)) == [0, 1]
    one.close()
    assert [each.confirmed for each in present(tmp_path)] == [0]
    other.close()
