"""What a gateway confirms it has carried out, all of it and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.assembly.kill_watch import LOOK_NS, KillWatch
from holdfast.policy.kill import Kill, Kills
from holdfast.shared.kill_switch import change
from holdfast.shared.presence import Gateway, present
from holdfast.testing import FakeClock

GATEWAY = Gateway(pid=1, kind="worker", address="", agents=(), releases=(), started=1)


def kill(folder: Path, agent: str) -> int:
    return change(folder, lambda kills: kills.with_kill(Kill(scope="agent", value=agent)))


def confirmed(folder: Path) -> int:
    (found,) = present(folder)
    return found.confirmed


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def watch(tmp_path: Path, clock: FakeClock) -> Iterator[KillWatch]:
    kill(tmp_path, "before")
    made = KillWatch(tmp_path, GATEWAY, clock)
    yield made
    made.close()
    assert not clock.pending
    assert present(tmp_path) == []


def test_a_change_is_carried_out_and_confirmed_without_a_call(tmp_path: Path, clock: FakeClock, watch: KillWatch) -> None:
    heard: list[Kills] = []
    assert confirmed(tmp_path) == 1
    watch.start(heard.append)
    assert [len(kills.active) for kills in heard] == [1]
    kill(tmp_path, "support")
    assert confirmed(tmp_path) == 1
    clock.advance(LOOK_NS)
    assert [len(kills.active) for kills in heard] == [1, 2]
    assert confirmed(tmp_path) == 2
    clock.advance(10 * LOOK_NS)
    assert len(heard) == 2


def test_a_change_that_a_call_has_seen_is_carried_out_all_the_same(tmp_path: Path, clock: FakeClock, watch: KillWatch) -> None:
    heard: list[Kills] = []
    watch.start(heard.append)
    kill(tmp_path, "support")
    assert len(watch.switch.kills().active) == 2
    assert confirmed(tmp_path) == 1
    clock.advance(LOOK_NS)
    assert (len(heard), confirmed(tmp_path)) == (2, 2)


def test_a_change_that_comes_while_another_is_carried_out_is_not_confirmed_with_it(
    tmp_path: Path, clock: FakeClock, watch: KillWatch
) -> None:
    def carry_out(kills: Kills) -> None:
        if len(kills.active) == 2:
            kill(tmp_path, "late")
            assert len(watch.switch.kills().active) == 3

    watch.start(carry_out)
    kill(tmp_path, "support")
    clock.advance(LOOK_NS)
    assert confirmed(tmp_path) == 2
    clock.advance(LOOK_NS)
    assert confirmed(tmp_path) == 3


def test_what_could_not_be_carried_out_is_not_confirmed(tmp_path: Path, clock: FakeClock, watch: KillWatch) -> None:
    failing = [True]

    def carry_out(kills: Kills) -> None:
        if len(kills.active) == 2 and failing.pop():
            failing.append(False)
            raise RuntimeError("a defect")

    watch.start(carry_out)
    kill(tmp_path, "support")
    with pytest.raises(RuntimeError):
        clock.advance(LOOK_NS)
    assert confirmed(tmp_path) == 1
    clock.advance(LOOK_NS)
    assert confirmed(tmp_path) == 2


def test_a_gateway_that_cannot_read_the_switch_confirms_nothing(tmp_path: Path, clock: FakeClock, watch: KillWatch) -> None:
    heard: list[Kills] = []
    watch.start(heard.append)
    (tmp_path / "kill.json").write_text("damaged")
    clock.advance(LOOK_NS)
    assert heard[-1].unreadable
    assert change(tmp_path, lambda kills: kills, anew=True) == 2
    assert confirmed(tmp_path) == 1
    clock.advance(LOOK_NS)
    assert (heard[-1].active, confirmed(tmp_path)) == ((), 2)
