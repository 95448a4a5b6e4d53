"""Reading: newest first, by identifier, whole prompts; damage costs only the lines it hit."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.events import ApiCall, Context, Decision, Error, Event, InteractionStarted, LimitRefusal
from holdfast.events.usage import Usage
from holdfast.store.interactions import InteractionFilter
from holdfast.store.journal import Journal
from holdfast.store.reader import DecisionFilter, JournalReader
from holdfast.testing import FakeClock

NewJournal = Callable[..., Journal]
NewDecision = Callable[..., Decision]


def write(journal: Journal, *events: Event) -> Path:
    for event in events:
        journal.append(event)
    journal.close()
    assert journal.path is not None
    return journal.path


def started(number: int) -> InteractionStarted:
    return InteractionStarted(interaction=f"i{number}", timestamp=number, agent="a", release="r", identified_by="header")


def call(decision: Decision, attempt: int = 1, **fields: Any) -> ApiCall:
    return ApiCall(
        **{
            "call_id": f"{decision.decision_id}.{attempt}",
            "timestamp": decision.timestamp,
            "agent": decision.agent,
            "release": decision.release,
            "interaction": decision.interaction,
            "decision_id": decision.decision_id,
            "target_api": "openai/gpt-5.1 POST /v1/chat/completions",
            "response_code": 200,
            "latency_ms": 12.5,
            "attempt": attempt,
            "retry_count": attempt - 1,
            "bytes_sent": 10,
            "cost": 5,
            "cost_source": "provider",
        }
        | fields
    )


def test_a_data_directory_without_journals_is_empty_not_an_error(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "nowhere")
    assert (list(reader.events()), reader.decisions(), reader.interactions(), reader.find_decisions("0" * 36)) == ([], [], [], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir(mode=0)
    with pytest.raises(StorageError, match="Permission denied"):
        JournalReader(tmp_path).decisions()


@settings(max_examples=30)
@given(writers=st.lists(st.lists(st.integers(0, 100), max_size=10), max_size=4))
def test_the_files_of_all_writers_are_merged_newest_first(writers: list[list[int]]) -> None:
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        for number, times in enumerate(writers):
            journal = Journal(Path(folder), f"w{number}", FakeClock(), executor)
            for time in sorted(times):
                journal.append(started(time))
            journal.close()
        times = [event.timestamp for event in JournalReader(Path(folder)).events() if isinstance(event, InteractionStarted)]
        assert times == sorted((time for times in writers for time in times), reverse=True)


def test_writers_at_the_same_time_keep_all_their_events(tmp_path: Path) -> None:
    def work(name: str) -> None:
        journal = Journal(tmp_path, name, FakeClock(), executor)
        for number in range(200):
            journal.append(started(number))
            journal.flush()
        journal.close()

    with ThreadPoolExecutor(1) as executor:
        threads = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    reader = JournalReader(tmp_path)
    assert len(list(reader.events())) == 800
    assert reader.damage == []


@settings(max_examples=60)
@given(data=st.data())
def test_a_truncated_last_line_is_dropped_and_counted(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        path = write(Journal(Path(folder), "w", FakeClock(), executor), *(started(number) for number in range(3)))
        content = path.read_bytes()
        last = content.rindex(b"\n", 0, len(content) - 1) + 1
        cut = data.draw(st.integers(last, len(content) - 1))
        os.truncate(path, cut)
        reader = JournalReader(Path(folder))
        assert list(reader.events()) == [started(1), started(0)]
        assert [(damage.offset, damage.torn) for damage in reader.damage] == ([(last, True)] if cut > last else [])


@settings(max_examples=100)
@given(position=st.integers(0, 399), bit=st.integers(0, 7))
def test_a_flipped_bit_costs_at_most_the_lines_it_touches(position: int, bit: int) -> None:
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        written = [started(number) for number in range(6)]
        path = write(Journal(Path(folder), "w", FakeClock(), executor), *written)
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << bit
        path.write_bytes(content)
        reader = JournalReader(Path(folder))
        read = list(reader.events())
        intact = [event for event in written if event in read]
        assert len(intact) >= len(written) - 2
        assert len(read) <= len(written)
        assert len(read) == len(written) or reader.damage


def test_damage_names_file_and_offset_once_however_often_it_is_met(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    events = [decision() for _ in range(3)]
    path = write(new_journal(), *events)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"kind":"decision","oops"}\n' + b"garbage\n" + lines[1] + lines[2])
    reader = JournalReader(tmp_path)
    for _ in range(2):
        assert reader.decisions() == events[::-1]
    first, second = reader.damage
    assert (first.file, first.offset, first.torn) == (path, len(lines[0]), False)
    assert second.offset == len(lines[0]) + len(b'{"kind":"decision","oops"}\n')


def test_damage_is_noticed_in_lines_of_every_kind(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    event = decision()
    path = write(new_journal(), call(event), event)
    of_call, of_decision = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(of_call[:-20] + b"\n" + of_decision + of_call[:-1])
    reader = JournalReader(tmp_path)
    assert reader.decisions() == [event]
    assert [(damage.offset, damage.torn) for damage in reader.damage] == [(0, False), (len(of_call) - 19 + len(of_decision), True)]


def test_decisions_come_newest_first_and_filtered(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    old = decision(agent="billing", user_id="ann", run="r1", chosen_action="lookup+refund")
    cut = decision(complete=False, timestamp=old.timestamp + 5 * SECOND)
    healed = decision(error_id="e", recovery_action="retried", timestamp=old.timestamp + 6 * SECOND)
    write(new_journal(), old, cut, healed)
    reader = JournalReader(tmp_path)
    assert reader.decisions() == [healed, cut, old]
    assert reader.decisions(limit=2) == [healed, cut]
    assert reader.decisions(DecisionFilter(failed=True)) == [cut]
    assert reader.decisions(DecisionFilter(since_ns=cut.timestamp)) == [healed, cut]
    for where in (
        DecisionFilter(agent="billing"),
        DecisionFilter(user="ann"),
        DecisionFilter(run="r1"),
        DecisionFilter(action="refund"),
        DecisionFilter(action="lookup+refund"),
    ):
        assert reader.decisions(where) == [old]
    assert reader.decisions(DecisionFilter(release="v2")) == []


def test_a_decision_is_found_by_its_identifier_or_a_unique_beginning_of_it(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision, clock: FakeClock
) -> None:
    first, second = decision(), decision()
    write(new_journal(), first, second)
    clock.advance(86_400 * SECOND)
    late = decision(decision_id="not-a-uuid-of-ours")
    write(new_journal(), late)
    reader = JournalReader(tmp_path)
    assert reader.find_decisions(first.decision_id) == [first]
    assert reader.find_decisions(f" {first.decision_id[:18].upper()} ") == [first]
    assert reader.find_decisions(first.decision_id[:8]) == [second, first]
    assert reader.find_decisions("not-a-uuid") == [late]
    assert reader.find_decisions(first.decision_id[:7]) == []
    assert reader.find_decisions("ffffffff") == []


def test_a_look_up_by_identifier_opens_only_the_files_of_its_time(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision, clock: FakeClock
) -> None:
    wanted = decision()
    path = write(new_journal(), wanted)
    os.utime(path, ns=(clock.wall_ns(), clock.wall_ns()))
    for _ in range(3):
        clock.advance(86_400 * SECOND)
        path = write(new_journal(), decision())
        path.write_bytes(b"a reader of this file would report damage\n")
    reader = JournalReader(tmp_path)
    assert reader.find_decisions(wanted.decision_id) == [wanted]
    assert reader.full_input(wanted).missing == ()
    assert reader.damage == []


def messages(*texts: str) -> bytes:
    return msgspec.json.encode([{"role": "user", "content": text} for text in texts])


def texts(found: tuple[Raw, ...]) -> list[str]:
    return [msgspec.json.decode(message)["content"] for message in found]


@pytest.fixture
def conversation(decision: NewDecision) -> list[Decision]:
    first = decision(input_messages=messages("a", "b"))
    second = decision(parent=first.decision_id, inherited_messages=2, input_messages=messages("c", "d"))
    third = decision(parent=second.decision_id, inherited_messages=3, input_messages=messages("e"), context=("d1", "d2"))
    return [first, second, third]


SYSTEM = Context(digest="d1", role="system", content=Raw(b'"be kind"'))
TOOLS = Context(digest="d2", role="tools", content=Raw(b"[1]"))


def test_the_whole_input_is_rebuilt_from_what_each_decision_added(
    tmp_path: Path, new_journal: NewJournal, conversation: list[Decision]
) -> None:
    write(new_journal("a"), conversation[0], conversation[1])
    write(new_journal("b"), SYSTEM, TOOLS, conversation[2])
    full = JournalReader(tmp_path).full_input(conversation[2])
    assert texts(full.messages) == ["a", "b", "c", "e"]
    assert (full.system, full.tools, full.missing) == (SYSTEM.content, TOOLS.content, ())


def test_missing_parts_of_an_input_are_named(tmp_path: Path, new_journal: NewJournal, conversation: list[Decision]) -> None:
    write(new_journal(), SYSTEM, conversation[1], conversation[2])
    full = JournalReader(tmp_path).full_input(conversation[2])
    assert texts(full.messages) == ["c", "e"]
    assert full.system == SYSTEM.content
    assert full.missing == (
        f"messages 1 to 2, recorded with decision {conversation[0].decision_id}",
        "system prompt or tools with digest d2",
    )


def test_decisions_that_name_each_other_as_parents_do_not_hang_the_reader(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision
) -> None:
    one = decision(decision_id="one-of-two", parent="two-of-two", inherited_messages=1, input_messages=messages("x"))
    two = decision(decision_id="two-of-two", parent="one-of-two", inherited_messages=1, input_messages=messages("y"))
    write(new_journal(), one, two)
    assert JournalReader(tmp_path).full_input(two).missing


def test_an_interaction_is_told_in_order_and_added_up(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    begin = InteractionStarted(interaction="chat-1", timestamp=1, agent="support", release="v1", user_id="ann", identified_by="header")
    first = decision(usage=Usage(10, 2), timestamp=10)
    error = Error(error_id="e", timestamp=11, agent="support", interaction="chat-1", error_type="timeout", message="m", severity="warning")
    second = decision(usage=Usage(20, 3, 5), timestamp=20)
    events = [begin, call(first), first, error, call(second, timestamp=15, cost=None, cost_source="unpriced"), second]
    other = decision(interaction="chat-10")
    write(new_journal(), *events, call(other), other)
    story = JournalReader(tmp_path).interaction("chat-1")
    assert story is not None
    assert story.events == tuple(events)
    assert (story.decisions, story.errors) == ([first, second], [error])
    summary = story.summary
    assert (summary.decisions, summary.calls, summary.errors, summary.refusals) == (2, 2, 1, 0)
    assert summary.usage == Usage(30, 5, 5)
    assert (summary.cost, summary.cost_complete) == (5, False)
    assert (summary.first_ns, summary.last_ns, summary.user_id) == (1, 20, "ann")
    assert JournalReader(tmp_path).interaction("chat") is None


def test_interactions_are_listed_by_their_last_activity_and_counted_from_their_first(
    tmp_path: Path, new_journal: NewJournal, decision: NewDecision
) -> None:
    events = [decision(interaction=f"chat-{number % 4}", user_id=f"u{number % 4}") for number in range(20)]
    begins = [InteractionStarted(interaction=f"chat-{n}", timestamp=1, agent="even", release="v", identified_by="header") for n in range(4)]
    refusal = LimitRefusal(
        timestamp=2, agent="even", interaction="chat-0", limit="l", scope="all", unit="usd", amount=1, spent=1, reserved=0, asked=1
    )
    write(new_journal(), *begins, refusal, *events)
    reader = JournalReader(tmp_path)
    listed = reader.interactions()
    assert [(summary.interaction, summary.decisions) for summary in listed] == [(f"chat-{n}", 5) for n in (3, 2, 1, 0)]
    assert [summary.refusals for summary in listed] == [0, 0, 0, 1]
    assert [summary.interaction for summary in reader.interactions(limit=2)] == ["chat-3", "chat-2"]
    assert reader.interactions(limit=2)[0].decisions == 5
    assert [s.interaction for s in reader.interactions(InteractionFilter(user="u2"))] == ["chat-2"]
    assert [s.interaction for s in reader.interactions(InteractionFilter(since_ns=events[-1].timestamp))] == ["chat-3"]
    assert reader.interactions(InteractionFilter(since_ns=events[-1].timestamp))[0].decisions == 5


def test_a_long_interaction_is_counted_from_its_start(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    hour = 3600 * SECOND
    begin = InteractionStarted(interaction="chat-1", timestamp=1, agent="a", release="v", identified_by="header")
    write(new_journal(), begin, *(decision(timestamp=1 + number * hour) for number in range(5)))
    [summary] = JournalReader(tmp_path).interactions(limit=1)
    assert (summary.decisions, summary.first_ns) == (5, 1)


def test_a_cost_that_was_never_known_is_not_zero(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    write(new_journal(), decision(cost=None))
    [summary] = JournalReader(tmp_path).interactions()
    assert (summary.cost, summary.cost_complete) == (None, False)


def test_interactions_are_found_by_a_beginning_of_their_name(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    write(new_journal(), *(decision(interaction=name) for name in ("chat", "chat-with-ann", "chat-with-bob", 'quote"d')))
    reader = JournalReader(tmp_path)
    assert reader.interactions_named("chat") == ["chat"]
    assert reader.interactions_named("chat-with-") == ["chat-with-ann", "chat-with-bob"]
    assert reader.interactions_named("chat-wi") == []
    assert reader.interactions_named('quote"d') == ['quote"d']


def test_the_calls_and_errors_of_a_decision_come_in_order(tmp_path: Path, new_journal: NewJournal, decision: NewDecision) -> None:
    one, other = decision(), decision()
    error = Error(
        error_id="e", timestamp=one.timestamp, agent="a", decision_id=one.decision_id, error_type="timeout", message="m", severity="info"
    )
    calls = [call(one, 1, response_code=429), error, call(one, 2)]
    write(new_journal(), *calls, one, call(other), other)
    assert JournalReader(tmp_path).served(one) == calls
