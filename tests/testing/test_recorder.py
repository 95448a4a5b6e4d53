import pytest
from msgspec import Raw

from holdfast.errors import StorageError
from holdfast.events import Context, Decision, Error
from holdfast.execution.recording import Recorder
from holdfast.testing import MemoryRecorder

DECISION = Decision(
    decision_id="d1", timestamp=1, agent="a", release="r", interaction="i", model="m", format="openai-chat", chosen_action="reply"
)
ERROR = Error(error_id="e1", timestamp=1, agent="a", error_type="timeout", message="late", severity="warning")
CONTEXT = Context(digest="00", role="system", content=Raw(b'"be good"'))


def test_events_count_only_once_they_are_flushed() -> None:
    recorder = MemoryRecorder()
    as_interface: Recorder = recorder
    as_interface.append(DECISION)
    as_interface.append(ERROR)
    assert (recorder.events, recorder.unflushed) == ([], [DECISION, ERROR])
    as_interface.flush()
    assert (recorder.decisions, recorder.errors, recorder.api_calls, recorder.unflushed) == ([DECISION], [ERROR], [], [])


def test_a_failing_flush_raises_and_keeps_nothing() -> None:
    recorder = MemoryRecorder(failing=True)
    recorder.append(DECISION)
    recorder.append(CONTEXT)
    with pytest.raises(StorageError):
        recorder.flush()
    recorder.failing = False
    recorder.flush()
    assert recorder.events == []
    assert not recorder.has_context("00")


def test_a_context_is_known_from_its_append_until_the_file_rotates() -> None:
    recorder = MemoryRecorder()
    assert not recorder.has_context("00")
    recorder.append(CONTEXT)
    assert recorder.has_context("00")
    recorder.rotate()
    assert not recorder.has_context("00")
