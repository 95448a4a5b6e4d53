"""Breakers that people hold open: seen at once, kept over restarts, told from a file that is damaged."""

import logging
from pathlib import Path

import pytest

from holdfast.errors import StorageError
from holdfast.policy.circuit_breaker import Isolation, Isolations
from holdfast.shared.isolations import FILE, SharedIsolations, change, read

ISOLATED = Isolation(name="openai/gpt", reason="it raves", author="ann@host", at=5)


def isolate(data_dir: Path, isolation: Isolation = ISOLATED) -> int:
    return change(data_dir, lambda isolations: isolations.with_isolation(isolation))


def test_a_change_is_seen_at_the_next_look_and_by_whoever_comes_later(tmp_path: Path) -> None:
    seen = SharedIsolations(tmp_path)
    assert seen.isolations().active == ()
    assert isolate(tmp_path) == 1
    assert seen.isolations().active == (ISOLATED,)
    assert seen.isolations() is seen.isolations()
    later = SharedIsolations(tmp_path)
    assert later.isolations().first(("openai", "openai/gpt")) == ISOLATED
    assert change(tmp_path, lambda isolations: isolations.without("openai/gpt")) == 2
    assert not seen.isolations().active and not later.isolations().active
    seen.close()
    later.close()


def test_it_survives_a_restart_of_the_machine_whose_counter_begins_anew(tmp_path: Path) -> None:
    isolate(tmp_path)
    (tmp_path / "breakers.counter").unlink()
    seen = SharedIsolations(tmp_path)
    assert seen.isolations().active == (ISOLATED,)
    assert isolate(tmp_path, Isolation(name="tool/crm")) == 2
    assert [each.name for each in seen.isolations().active] == ["openai/gpt", "tool/crm"]
    seen.close()


def test_an_edit_that_fails_changes_nothing(tmp_path: Path) -> None:
    isolate(tmp_path)

    def broken(isolations: Isolations) -> Isolations:
        raise StorageError("no")

    with pytest.raises(StorageError, match="no"):
        change(tmp_path, broken)
    assert read(tmp_path / FILE).serial == 1
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_leaves_what_was_known_and_is_begun_anew_only_on_purpose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    isolate(tmp_path)
    seen = SharedIsolations(tmp_path)
    (tmp_path / FILE).write_text('{"serial": 1, "isolated": [{"name": 7}]}')
    with pytest.raises(StorageError, match="reset --all"):
        isolate(tmp_path, Isolation(name="tool/crm"))
    seen.close()
    with caplog.at_level(logging.ERROR):
        later = SharedIsolations(tmp_path)
    assert later.isolations().active == () and "is damaged" in later.damage and "is damaged" in caplog.text
    change(tmp_path, lambda isolations: isolations, anew=True)
    assert later.isolations().active == () and later.damage == ""
    later.close()


def test_a_file_that_is_damaged_while_a_gateway_runs_takes_nothing_from_it(tmp_path: Path) -> None:
    isolate(tmp_path)
    seen = SharedIsolations(tmp_path)
    change(tmp_path, lambda isolations: isolations)
    (tmp_path / FILE).write_text("{")
    assert seen.isolations().active == (ISOLATED,)
    assert "is damaged" in seen.damage
    seen.close()
