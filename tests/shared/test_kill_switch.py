"""What one process kills is killed for all, whatever happens to files, processes and the machine; what cannot be read stops everything."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.errors import HoldfastError, StorageError
from holdfast.policy.kill import Kill, Kills
from holdfast.shared import memory
from holdfast.shared.kill_switch import SharedKillSwitch, change, now

SUPPORT = Kill(scope="agent", value="support", mode="cut", reason="it refunds", author="ann@host", at=7)
ALL = Kill(scope="all")
ANOTHER_PROCESS = """
import sys
from pathlib import Path
from holdfast.policy.kill import Kill
from holdfast.shared.kill_switch import change
for name in sys.argv[2:]:
    change(Path(sys.argv[1]), lambda kills: kills.with_kill(Kill(scope="agent", value=name)))
"""


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[SharedKillSwitch]:
    made = SharedKillSwitch(tmp_path)
    yield made
    made.close()


def kill(folder: Path, killed: Kill) -> int:
    return change(folder, lambda kills: kills.with_kill(killed))


def test_nothing_is_killed_at_first(tmp_path: Path, switch: SharedKillSwitch) -> None:
    assert (switch.kills().active, switch.serial, switch.damage) == ((), 0, "")
    assert now(tmp_path).kills == ()


def test_what_another_process_kills_is_seen_at_the_next_call(tmp_path: Path, switch: SharedKillSwitch) -> None:
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path), "support"], check=True)
    assert switch.kills().stopping(["support"], "", []) is not None
    assert switch.serial == 1


def test_it_says_all_that_was_said(tmp_path: Path, switch: SharedKillSwitch) -> None:
    assert kill(tmp_path, SUPPORT) == 1
    assert kill(tmp_path, ALL) == 2
    assert switch.kills().active == now(tmp_path).kills == (SUPPORT, ALL)
    assert change(tmp_path, lambda kills: kills.without("all", "")) == 3
    assert switch.kills().active == (SUPPORT,)


def test_processes_that_kill_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    names = [[f"agent-{process}-{number}" for number in range(5)] for process in range(4)]
    started = [subprocess.Popen([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path), *some]) for some in names]
    assert [process.wait() for process in started] == [0] * 4
    state = now(tmp_path)
    assert {each.value for each in state.kills} == {name for some in names for name in some}
    assert state.serial == 20


def test_it_holds_after_the_machine_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(tmp_path, SUPPORT)
    monkeypatch.setattr(memory, "boot_id", lambda: b"another start")
    switch = SharedKillSwitch(tmp_path)
    assert switch.kills().active == (SUPPORT,)
    assert kill(tmp_path, ALL) == 2
    assert switch.kills().active == (SUPPORT, ALL)
    switch.close()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version":1,"serial":"x"}', b'{"version":1,"serial":2,"kills":[{"scope":"some"}]}', b"\xff"]
)
def test_what_cannot_be_read_stops_everything_until_it_can(tmp_path: Path, switch: SharedKillSwitch, content: bytes) -> None:
    kill(tmp_path, SUPPORT)
    assert switch.kills().active
    (tmp_path / "kill.json").write_bytes(content)
    held = switch.look_closer()
    stopped = held.stopping(["anybody"], "v1", ["m"])
    assert held.unreadable and stopped is not None
    assert "holdfast resume --everything" in stopped.reason and str(tmp_path / "kill.json") in stopped.reason
    for use in (lambda: now(tmp_path), lambda: kill(tmp_path, ALL)):
        with pytest.raises(StorageError, match="damaged"):
            use()
    assert change(tmp_path, lambda kills: Kills(), anew=True) == 2
    assert switch.look_closer().active == ()
    assert switch.serial == 2


def test_a_file_that_is_gone_lifts_nothing(tmp_path: Path, switch: SharedKillSwitch) -> None:
    kill(tmp_path, SUPPORT)
    (tmp_path / "kill.json").unlink()
    assert switch.look_closer().unreadable
    with pytest.raises(StorageError, match="gone"):
        now(tmp_path)
    started_later = SharedKillSwitch(tmp_path)
    assert started_later.kills().unreadable
    started_later.close()


def test_a_file_that_is_replaced_without_the_counter_is_noticed(tmp_path: Path, switch: SharedKillSwitch) -> None:
    kill(tmp_path, SUPPORT)
    (tmp_path / "kill.counter").unlink()
    kill(tmp_path, ALL)
    assert switch.look_closer().active == (SUPPORT, ALL)


def test_an_edit_that_fails_changes_nothing(tmp_path: Path, switch: SharedKillSwitch) -> None:
    kill(tmp_path, SUPPORT)

    def fails(kills: Kills) -> Kills:
        raise HoldfastError("no such kill")

    with pytest.raises(HoldfastError, match="no such kill"):
        change(tmp_path, fails)
    assert (switch.kills().active, switch.serial) == ((SUPPORT,), 1)


def test_a_full_disk_leaves_what_held_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill(tmp_path, SUPPORT)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        kill(tmp_path, ALL)
    assert now(tmp_path).kills == (SUPPORT,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kill.counter", "kill.json"]


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    kill(tmp_path / "new", SUPPORT)
    assert [(path.stat().st_mode & 0o777) for path in (tmp_path / "new", *sorted((tmp_path / "new").iterdir()))] == [0o700, 0o600, 0o600]
