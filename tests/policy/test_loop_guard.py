"""Loops are told from the history, in every format alike; work that gets on is let through."""

import sys
from collections.abc import Sequence
from itertools import accumulate
from zlib import crc32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from holdfast.policy.loop_guard import Loop, LoopGuard, LoopOptions
from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import Call, ToolCall, WireFormat

FORMATS: dict[str, WireFormat] = {form.name: form for form in (openai_chat.FORMAT, anthropic_messages.FORMAT, openai_responses.FORMAT)}
OPTIONS = LoopOptions()


class Use(Struct, frozen=True):
    """One call of a tool, and what it gave back."""

    name: str = "search"
    arguments: object = "the same"
    result: str = "nothing"


class Answered(Struct, frozen=True):
    uses: tuple[Use, ...] = ()
    text: str = ""


Event = str | Answered
"""What somebody said, or what the model did."""


def again(count: int, **fields: object) -> list[Event]:
    return [Answered((Use(**fields),))] * count  # type: ignore[arg-type]


def ids_of(events: Sequence[Event]) -> list[str]:
    """For each event the beginning of its calls' ids: the same whenever this history is sent, others in a branch of it."""
    return [f"call_{state:x}" for state in accumulate(events, lambda state, event: crc32(repr(event).encode(), state), initial=0)][1:]


def chat(events: Sequence[Event]) -> list[object]:
    messages: list[object] = []
    ids = ids_of(events)
    for number, event in enumerate(events):
        if isinstance(event, str):
            messages.append({"role": "user", "content": event})
            continue
        calls = [
            {"id": f"{ids[number]}_{at}", "type": "function", "function": {"name": use.name, "arguments": dumped(use)}}
            for at, use in enumerate(event.uses)
        ]
        messages.append({"role": "assistant", "content": event.text or None} | ({"tool_calls": calls} if calls else {}))
        messages += [{"role": "tool", "tool_call_id": f"{ids[number]}_{at}", "content": use.result} for at, use in enumerate(event.uses)]
    return messages


def anthropic(events: Sequence[Event]) -> list[object]:
    messages: list[object] = []
    ids = ids_of(events)
    for number, event in enumerate(events):
        if isinstance(event, str):
            messages.append({"role": "user", "content": event})
            continue
        said: list[object] = [{"type": "text", "text": event.text}] if event.text else []
        said += [
            {"type": "tool_use", "id": f"{ids[number]}_{at}", "name": use.name, "input": use.arguments} for at, use in enumerate(event.uses)
        ]
        messages.append({"role": "assistant", "content": said})
        results = [
            {"type": "tool_result", "tool_use_id": f"{ids[number]}_{at}", "content": use.result} for at, use in enumerate(event.uses)
        ]
        if results:
            messages.append({"role": "user", "content": results})
    return messages


def responses(events: Sequence[Event]) -> list[object]:
    items: list[object] = []
    ids = ids_of(events)
    for number, event in enumerate(events):
        if isinstance(event, str):
            items.append({"role": "user", "content": event})
            continue
        if event.text:
            items.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": event.text}]})
        items += [
            {"type": "function_call", "call_id": f"{ids[number]}_{at}", "name": use.name, "arguments": dumped(use)}
            for at, use in enumerate(event.uses)
        ]
        items += [
            {"type": "function_call_output", "call_id": f"{ids[number]}_{at}", "output": use.result} for at, use in enumerate(event.uses)
        ]
    return items


def dumped(use: Use) -> str:
    return msgspec.json.encode(use.arguments).decode()


WRITERS = {"openai-chat": chat, "anthropic-messages": anthropic, "openai-responses": responses}
TOOLS = [{"type": "function", "name": "search", "function": {"name": "search"}, "input_schema": {}}]


def call_of(form: str, messages: Sequence[object], **fields: object) -> Call:
    where = "input" if form == "openai-responses" else "messages"
    return FORMATS[form].parse(msgspec.json.encode({"model": "m", "max_tokens": 9, "tools": TOOLS, where: messages, **fields}))


def call(events: Sequence[Event], form: str = "openai-chat") -> Call:
    return call_of(form, WRITERS[form](events))


def lengths(events: Sequence[Event]) -> list[int]:
    """Up to where the history goes at each request: before every answer, and at the end."""
    return [at for at, event in enumerate(events) if at and not isinstance(event, str)] + [len(events)]


def verdicts(
    events: Sequence[Event], form: str = "openai-chat", options: LoopOptions = OPTIONS, guard: LoopGuard | None = None
) -> list[Loop | None]:
    """What is said of every request on the way."""
    guard = guard or LoopGuard()
    return [guard.check("i", form, call(events[:length], form), options, 0) for length in lengths(events)]


def found(events: Sequence[Event], options: LoopOptions = OPTIONS) -> list[tuple[str, bool, int]]:
    return [(loop.kind, loop.stop, loop.count) for loop in verdicts(events, options=options) if loop is not None]


def alone(events: Sequence[Event], form: str = "openai-chat", options: LoopOptions = OPTIONS) -> Loop | None:
    """What a process says that has never heard of the interaction."""
    return LoopGuard().check("i", form, call(events, form), options, 0)


NO_STALE = LoopOptions(no_new_result=0, same_result=0)


def test_the_same_call_with_the_same_result_is_warned_of_and_then_stopped() -> None:
    assert found(["find it", *again(8)], NO_STALE) == [("same_call", False, 4), ("same_call", True, 8)]
    stop = verdicts(["find it", *again(8)])[-1]
    assert stop is not None
    assert (stop.tools, stop.limit, stop.since) == (("search",), 8, 1)


def test_only_what_comes_in_a_row_is_counted() -> None:
    other = Answered((Use("read", result="page"),))
    mixed: list[Event] = ["go", other, *again(3), other, *again(4), other, *again(2)]
    said = found(mixed, LoopOptions(same_call=5, no_new_result=0, cycle=0, warn_at=100))
    assert said == []
    assert found([*mixed, *again(3)], LoopOptions(same_call=5, no_new_result=0, cycle=0, warn_at=100)) == [("same_call", True, 5)]


def test_parallel_calls_are_one_round_in_any_order() -> None:
    both = (Use("one", result="1"), Use("two", result="2"))
    swapped: list[Event] = ["go", *[Answered(both if at % 2 else both[::-1]) for at in range(8)]]
    assert ("same_call", True, 8) in found(swapped)


def test_arguments_are_the_same_however_they_are_written() -> None:
    messages = chat(["go", *again(8, arguments={"a": 1, "b": [2]})])
    for at, message in enumerate(messages):
        if at % 4 == 3:
            message["tool_calls"][0]["function"]["arguments"] = '{ "b" : [2.0], "a" : 1 }'  # type: ignore[index]
    stop = LoopGuard().check("i", "openai-chat", call_of("openai-chat", messages), OPTIONS, 0)
    assert stop is not None
    assert (stop.kind, stop.count) == ("same_call", 8)


def test_polling_whose_result_changes_is_progress() -> None:
    polled = [Answered((Use("check_status", {}, f"{percent} %"),)) for percent in range(60)]
    assert found(["wait for it", *polled]) == []


def test_polling_with_the_same_result_is_none_unless_the_tool_is_named() -> None:
    polled: list[Event] = ["wait", *again(12, name="wait_for_build")]
    assert [kind for kind, stop, _ in found(polled) if stop][:1] == ["same_call"]
    assert found(polled, LoopOptions(polling=frozenset({"wait_for_build"}))) == []


def test_calls_beside_a_polling_tool_still_count() -> None:
    both: list[Event] = ["go", *[Answered((Use(), Use("wait_for_build", {}, "wait")))] * 8]
    stops = [kind for kind, stop, _ in found(both, LoopOptions(polling=frozenset({"wait_for_build"}))) if stop]
    assert stops == ["same_call"]


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_cycle_of_calls_is_told(period: int) -> None:
    events: list[Event] = ["go", *[Answered((Use(f"tool{at % period}", {}, "same"),)) for at in range(period * 4)]]
    stops = [loop for loop in verdicts(events, options=NO_STALE) if loop is not None and loop.stop]
    assert [(loop.kind, loop.count, loop.tools, loop.since) for loop in stops] == [
        ("cycle", 4, tuple(f"tool{at}" for at in range(period)), 1)
    ]


def test_the_same_call_is_no_cycle() -> None:
    assert {kind for kind, _, _ in found(["go", *again(20)], LoopOptions(same_call=0, no_new_result=0, same_result=0))} == set()


def test_rounds_that_were_all_there_before_are_no_progress_in_any_order() -> None:
    tools = [*range(5), 3, 1, 4, 0, 2, 1, 0, 3, 4, 2]
    events: list[Event] = ["go", *[Answered((Use(f"tool{tool}", {}, f"result {tool}"),)) for tool in tools]]
    assert [(kind, stop, count) for kind, stop, count in found(events)] == [("no_new_result", False, 5), ("no_new_result", True, 10)]


def test_new_arguments_with_an_old_result_may_be_work_and_have_a_limit_of_their_own() -> None:
    tagged: list[Event] = ["tag all", *[Answered((Use("tag", {"customer": number}, "ok"),)) for number in range(31)]]
    assert found(tagged) == [("same_result", False, 15), ("same_result", True, 30)]
    assert found(tagged[:-1]) == [("same_result", False, 15)]


def test_one_new_result_among_parallel_calls_is_progress() -> None:
    events: list[Event] = ["go", *[Answered((Use(), Use("read", {"line": line}, f"line {line}"))) for line in range(40)]]
    assert found(events) == []


def test_an_edit_between_two_equal_test_runs_is_progress() -> None:
    fixing = [Answered((use,)) for at in range(20) for use in (Use("edit", {"at": at}, "ok"), Use("test", {}, "1 failed"))]
    assert [loop for loop in found(["fix it", *fixing]) if loop[1] and loop[0] != "same_result"] == []


def test_somebody_who_speaks_ends_the_count() -> None:
    events: list[Event] = ["go", *again(7), "try once more", *again(7), "and again", *again(7)]
    assert not any(stop for _, stop, _ in found(events))


def test_a_nudge_that_is_always_the_same_does_not() -> None:
    events: list[Event] = ["go", "continue"]
    for _ in range(8):
        events += [*again(1), "continue"]
    stop = alone(events)
    assert stop is not None
    assert (stop.kind, stop.stop) == ("same_call", True)


def test_whoever_was_stopped_gets_on_with_another_call_or_a_word_of_the_user() -> None:
    looped: list[Event] = ["go", *again(9)]
    assert alone(looped) is not None
    assert alone([*looped, "use what you have"]) is None
    assert alone([*looped, *again(1, arguments={"q": 2}, result="found")]) is None


def test_too_many_answers_without_a_word_of_the_user_are_stopped() -> None:
    busy: list[Event] = ["go", *[Answered((Use("read", {"at": at}, f"line {at}"),)) for at in range(12)]]
    options = LoopOptions(max_turns=10)
    assert found(busy, options)[:2] == [("max_turns", False, 5), ("max_turns", True, 10)]
    talk: list[Event] = [part for at in range(30) for part in (f"question {at}", Answered(text=f"answer {at}"))]
    assert found(talk, options) == []


def test_an_input_that_grows_without_anything_new_is_stopped_early() -> None:
    page = "x" * 30_000
    events: list[Event] = ["go", *again(5, result=page)]
    assert ("growth", True) in [(kind, stop) for kind, stop, _ in found(events)]
    news: list[Event] = ["go", *[Answered((Use(result=page),), text=f"thought {at}") for at in range(5)]]
    assert "growth" not in [kind for kind, _, _ in found(news)]


def test_every_check_can_be_switched_off() -> None:
    off = LoopOptions(same_call=0, cycle=0, no_new_result=0, same_result=0, max_turns=0, growth=0)
    assert found(["go", *again(60, result="x" * 10_000)], off) == []


uses = st.builds(
    Use,
    name=st.sampled_from(["search", "read"]),
    arguments=st.sampled_from([{}, {"q": 1}, {"q": 2}]),
    result=st.sampled_from(["", "nothing", "found"]),
)
answers = st.builds(Answered, st.lists(uses, max_size=2).map(tuple), st.sampled_from(["", "", "let me see"])).filter(
    lambda answer: bool(answer.uses or answer.text)
)
histories = st.lists(st.one_of(answers, answers, answers, st.sampled_from(["go on", "no"])), min_size=1, max_size=25).map(
    lambda events: [
        "begin",
        *(event for event, before in zip(events, ["", *events], strict=False) if not plain(event) or not plain(before)),
    ]
)
small = LoopOptions(same_call=3, cycle=2, no_new_result=4, same_result=6, max_turns=12)


def plain(event: Event) -> bool:
    """Two answers in a row without calls are one to formats that know no borders between answers."""
    return isinstance(event, Answered) and not event.uses


@settings(deadline=None)
@given(histories)
def test_the_same_history_gives_the_same_verdicts_in_every_format(events: list[Event]) -> None:
    no_growth = msgspec.structs.replace(small, growth=0)  # formats have sizes of their own
    said = [verdicts(events, form, no_growth) for form in FORMATS]
    assert said[0] == said[1] == said[2]


@settings(deadline=None)
@given(histories)
def test_a_process_that_reads_the_whole_history_says_what_one_says_that_was_there(events: list[Event]) -> None:
    stops = [loop if loop is not None and loop.stop else None for loop in verdicts(events, options=small)]
    after_restart = [alone(events[:length], options=small) for length in lengths(events)]
    assert stops == [loop if loop is not None and loop.stop else None for loop in after_restart]


@settings(deadline=None)
@given(histories)
def test_requests_that_come_again_count_once(events: list[Event]) -> None:
    guard, warned = LoopGuard(), []
    for length, expected in zip(lengths(events), verdicts(events, options=small), strict=True):
        asked = call(events[:length])
        for _ in range(3):
            loop = guard.check("i", "openai-chat", asked, small, 0)
            if expected is not None and expected.stop:
                assert loop == expected
            elif loop is not None:
                assert not loop.stop
                warned.append(loop.kind)
    assert len(warned) == len(set(warned))


@settings(deadline=None)
@given(histories, st.lists(answers, min_size=1, max_size=4), st.lists(answers, min_size=1, max_size=4))
def test_branches_of_a_history_do_not_count_for_each_other(trunk: list[Event], one: list[Event], other: list[Event]) -> None:
    guard = LoopGuard()
    for events in (trunk, trunk + one, trunk + other, trunk + one):
        loop, expected = guard.check("i", "openai-chat", call(events), small, 0), alone(events, options=small)
        assert (loop is not None and loop.stop) == (expected is not None and expected.stop)


def test_parallel_sub_agents_that_begin_alike_do_not_count_for_each_other() -> None:
    guard = LoopGuard()
    for number in range(20):
        for length in (1, 2):
            events: list[Event] = [f"task {number}", *again(1)]
            assert guard.check("session", "openai-chat", call(events[:length]), OPTIONS, 0) is None


def test_the_count_goes_on_over_a_window_that_slides() -> None:
    guard, messages = LoopGuard(), chat(["go", *again(12)])
    said = [
        guard.check("i", "openai-chat", call_of("openai-chat", [messages[0], *messages[max(1, end - 6) : end]]), OPTIONS, 0)
        for end in range(3, 26, 2)
    ]
    assert next((loop.kind, loop.count) for loop in said if loop is not None and loop.stop) == ("same_call", 8)


def test_the_count_goes_on_after_a_compaction() -> None:
    guard = LoopGuard()
    for form in FORMATS:
        verdicts(["find it", *again(6)], form, guard=guard)
        compacted: list[Event] = ["summary: nothing found yet", *again(2)]
        assert guard.check("i", form, call(compacted[:1], form), OPTIONS, 0) is None
        loops = [guard.check("i", form, call(compacted[: 1 + rounds], form), OPTIONS, 0) for rounds in (1, 2)]
        assert loops[-1] is not None
        assert (loops[-1].kind, loops[-1].count, loops[-1].stop) == ("same_call", 8, True)
        guard = LoopGuard()


def test_the_count_goes_on_after_a_compaction_that_keeps_the_task() -> None:
    guard = LoopGuard()
    verdicts(["find it", *again(6)], guard=guard)
    compacted: list[Event] = ["find it", "summary: nothing found yet", *again(2)]
    said = [guard.check("i", "openai-chat", call(compacted[:length]), OPTIONS, 0) for length in lengths(compacted)]
    assert said[-1] is not None
    assert (said[-1].kind, said[-1].count) == ("same_call", 8)


def test_a_compacted_history_may_begin_although_the_one_before_it_was_stopped() -> None:
    guard = LoopGuard()
    assert verdicts(["find it", *again(9)], guard=guard)[-1] is not None
    assert guard.check("i", "openai-chat", call(["summary: nothing found yet"]), OPTIONS, 0) is None
    once_more = guard.check("i", "openai-chat", call(["summary: nothing found yet", *again(1)]), OPTIONS, 0)
    assert once_more is not None
    assert (once_more.kind, once_more.count) == ("same_call", 10)


def test_a_short_branch_is_no_compaction() -> None:
    guard, options = LoopGuard(), LoopOptions(same_call=3, warn_at=100)
    otherwise = [Answered((Use(),), text="I try that")]
    for branch in (again(2), otherwise, again(2), [], [Answered((Use(),), text="I try this")]):
        assert guard.check("i", "openai-chat", call(["go", "on", *branch]), options, 0) is None
    assert guard.check("i", "openai-chat", call(["go", "on", *again(1), "and so on", *again(2)]), options, 0) is None


def test_a_compaction_that_gets_on_is_let_through() -> None:
    guard = LoopGuard()
    verdicts(["find it", *again(7)], guard=guard)
    compacted: list[Event] = ["summary", *again(1, result="found"), *again(3)]
    assert [guard.check("i", "openai-chat", call(compacted[:length]), OPTIONS, 0) for length in lengths(compacted)] == [None] * 5


def test_answers_before_a_compaction_count_as_turns() -> None:
    guard, options = LoopGuard(), LoopOptions(max_turns=40)
    busy: list[Event] = ["go", *[Answered((Use("read", {"at": at}, f"line {at}"),)) for at in range(30)]]
    verdicts(busy, options=options, guard=guard)
    again_busy: list[Event] = ["summary", *[Answered((Use("read", {"at": at}, f"page {at}"),)) for at in range(10)]]
    said = verdicts(again_busy, options=options, guard=guard)
    assert [(loop.kind, loop.count) for loop in said if loop is not None and loop.stop] == [("max_turns", 40)]


def test_a_history_that_the_provider_keeps_is_counted_from_answers_and_results() -> None:
    guard = LoopGuard()
    guard.check("i", "openai-responses", call_of("openai-responses", [{"role": "user", "content": "go"}]), OPTIONS, 0)
    said = []
    for number in range(1, 9):
        guard.answered("i", [ToolCall("search", '{"q": 1}', f"call_{number}")])
        output = [{"type": "function_call_output", "call_id": f"call_{number}", "output": "nothing"}]
        asked = call_of("openai-responses", output, previous_response_id=f"resp_{number}")
        said.append(guard.check("i", "openai-responses", asked, OPTIONS, 0))
        resent = guard.check("i", "openai-responses", asked, OPTIONS, 0)
        assert (resent is not None and resent.stop) == (number == 8)
    stops = [loop for loop in said if loop is not None and loop.stop]
    assert [(loop.kind, loop.count, loop.tools) for loop in stops] == [("same_call", 8, ("search",))]
    assert [loop.count for loop in said if loop is not None and loop.kind == "same_call" and not loop.stop] == [4]


def test_results_of_calls_that_nobody_here_saw_are_not_guessed_at() -> None:
    guard = LoopGuard()
    for number in range(40):
        output = [{"type": "function_call_output", "call_id": f"call_{number}", "output": "ok"}]
        assert (
            guard.check("i", "openai-responses", call_of("openai-responses", output, previous_response_id=f"r{number}"), OPTIONS, 0) is None
        )


def test_a_request_under_a_kept_history_counts_once_however_often_it_comes() -> None:
    guard, options = LoopGuard(), LoopOptions(same_call=4, warn_at=100)
    guard.check("i", "openai-responses", call_of("openai-responses", [{"role": "user", "content": "go"}]), options, 0)
    guard.answered("i", [ToolCall("search", "{}", "c0")])
    asked = [{"type": "function_call_output", "call_id": "c0", "output": "nothing"}]
    for _ in range(9):
        assert guard.check("i", "openai-responses", call_of("openai-responses", asked, previous_response_id="r0"), options, 0) is None


@pytest.mark.parametrize("times", [1, 5])
def test_what_a_kept_history_has_grown_by_is_counted_once(times: int) -> None:
    guard, options = LoopGuard(), LoopOptions(same_call=0, no_new_result=0, same_result=0, growth=300, warn_at=100)
    guard.check("i", "openai-responses", call_of("openai-responses", [{"role": "user", "content": "go"}]), options, 0)
    said = []
    for number in range(6):
        guard.answered("i", [ToolCall("search", "{}", f"c{number}")])
        output = [{"type": "function_call_output", "call_id": f"c{number}", "output": "x" * 10_000}]
        asked = call_of("openai-responses", output, previous_response_id=f"r{number}")
        said += [guard.check("i", "openai-responses", asked, options, 0) for _ in range(times)][-1:]
    assert [loop.count // 100 for loop in said if loop is not None] == [4, 5]


def test_memory_is_bounded_by_count_and_by_time() -> None:
    guard, looped = LoopGuard(capacity=3), call(["go", *again(4)])
    warned = [guard.check(f"i{number % 4}", "openai-chat", looped, OPTIONS, 0) is not None for number in range(8)]
    assert warned == [True] * 8  # each is the first again: of four only three are remembered
    assert guard.check("i3", "openai-chat", looped, OPTIONS, 0) is None
    hour = 3600 * 10**9
    assert guard.check("new", "openai-chat", looped, OPTIONS, hour + 1) is not None
    assert guard.check("i3", "openai-chat", looped, OPTIONS, hour + 1) is not None


def test_what_is_kept_of_a_hostile_history_is_small() -> None:
    guard = LoopGuard()
    for number in range(30):
        many = [Answered(tuple(Use(f"tool{number}{at}" * 50, {"at": at}, f"{at}") for at in range(300)))] * 3
        guard.check("i", "openai-chat", call([f"{number}", *many]), OPTIONS, 0)
    long = [Answered((Use("read", number, f"{number}"),), f"I read {number}.") for number in range(3_000)]
    guard.check("i", "openai-chat", call(["go", *long]), OPTIONS, 0)
    assert deep_size(guard, set()) < 30_000


def deep_size(thing: object, known: set[int]) -> int:
    if id(thing) in known or isinstance(thing, type):
        return 0
    known.add(id(thing))
    inside: list[object] = []
    if isinstance(thing, dict):
        inside = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside = list(thing)
    for name in (*getattr(type(thing), "__slots__", ()), *getattr(type(thing), "__struct_fields__", ()), *getattr(thing, "__dict__", ())):
        inside.append(getattr(thing, name, None))
    return sys.getsizeof(thing) + sum(deep_size(part, known) for part in inside)
