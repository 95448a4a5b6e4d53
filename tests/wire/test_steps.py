"""What an agent did is read from its messages in every format, and nothing that it sends breaks the reading."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from holdfast.errors import MalformedRequest
from holdfast.wire import anthropic_messages, openai_chat, openai_responses
from holdfast.wire.call import WireFormat
from holdfast.wire.steps import READERS, Step, forbids_tools

FORMATS: dict[str, WireFormat] = {form.name: form for form in (openai_chat.FORMAT, anthropic_messages.FORMAT, openai_responses.FORMAT)}


def steps(form: str, messages: list[Any]) -> list[Step]:
    field = "input" if form == "openai-responses" else "messages"
    call = FORMATS[form].parse(msgspec.json.encode({"model": "m", "max_tokens": 1, field: messages}))
    return [step for raw, turn in zip(call.messages, call.turns, strict=True) for step in READERS[form](raw, turn.digest)]


def told(found: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.kind, step.id, step.name) for step in found]


def test_chat_messages_hold_calls_of_every_kind() -> None:
    found = steps(
        "openai-chat",
        [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": [{"type": "text", "text": "so"}],
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}},
                    {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "words"}},
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "one"}]},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 2, "b": 1.0}'}},
            {"role": "function", "name": "f", "content": "one"},
            {"role": "assistant", "content": ""},
        ],
    )
    expected = [("user", "", ""), ("text", "", ""), ("call", "c1", "f"), ("call", "c2", "g"), ("result", "c1", ""), ("result", "c2", "")]
    assert told(found) == [*expected, ("call", "", "f"), ("result", "", "f")]
    assert found[2].key == found[6].key != found[3].key
    assert found[4].key == found[5].key == found[7].key


def test_anthropic_messages_hold_calls_and_results_in_blocks() -> None:
    found = steps(
        "anthropic-messages",
        [
            {"role": "user", "content": "go"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "so"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": 1, "a": 2}},
                    {"type": "tool_use", "id": "t2", "name": "f", "input": {"a": 2, "b": 1}, "cache_control": {"type": "ephemeral"}},
                    {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                    {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "one"}]},
                    {"type": "text", "text": "<system-reminder>12:01</system-reminder>"},
                ],
            },
            {"role": "user", "content": [{"type": "text", "text": "go on"}]},
        ],
    )
    assert told(found) == [
        ("user", "", ""),
        ("text", "", ""),
        ("call", "t1", "f"),
        ("call", "t2", "f"),
        ("result", "t1", ""),
        ("result", "t2", ""),
        ("user", "", ""),
    ]
    assert found[2].key == found[3].key
    assert found[4].key == found[5].key


def test_responses_hold_calls_and_results_as_items() -> None:
    found = steps(
        "openai-responses",
        [
            {"role": "developer", "content": "be kind"},
            {"role": "user", "content": "go"},
            {"type": "reasoning", "id": "r1", "summary": [], "encrypted_content": "x"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"b":1,"a":2}'},
            {"type": "local_shell_call", "call_id": "c2", "action": {"type": "exec", "command": ["ls"]}},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "local_shell_call_output", "call_id": "c2", "output": "one"},
            {"type": "web_search_call", "id": "w1"},
        ],
    )
    expected = [
        ("user", "", ""),
        ("text", "", ""),
        ("call", "c1", "f"),
        ("call", "c2", "local_shell"),
        ("result", "c1", ""),
        ("result", "c2", ""),
    ]
    assert told(found) == expected
    assert found[4].key == found[5].key


@pytest.mark.parametrize(
    ("form", "choice", "forbidden"),
    [
        ("openai-chat", "none", True),
        ("openai-chat", "auto", False),
        ("openai-responses", "none", True),
        ("anthropic-messages", {"type": "none"}, True),
        ("anthropic-messages", {"type": "any"}, False),
    ],
)
def test_a_call_may_forbid_tools(form: str, choice: object, forbidden: bool) -> None:
    field = "input" if form == "openai-responses" else "messages"
    body = {"model": "m", "max_tokens": 1, field: [{"role": "user", "content": '"tool_choice":"none"'}], "tool_choice": choice}
    assert forbids_tools(FORMATS[form].parse(msgspec.json.format(msgspec.json.encode(body)))) is forbidden


NAMES = st.sampled_from(
    [
        *("role", "type", "content", "id", "name", "input", "arguments", "tool_calls", "function", "function_call", "custom"),
        *("call_id", "tool_call_id", "tool_use_id", "output", "action", "text", "summary"),
    ]
)
KINDS = st.sampled_from(
    ["text", "tool_use", "tool_result", "function_call", "function_call_output", "message", "reasoning", "shell_call", "image", "function"]
)
scraps = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(0, 9), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
messages = st.builds(
    lambda fields, role, kind: fields | ({"role": role} if role else {}) | ({"type": kind} if kind else {}),
    st.dictionaries(
        NAMES,
        st.one_of(scraps, st.lists(st.builds(lambda kind, more: more | {"type": kind}, KINDS, st.dictionaries(NAMES, scraps)), max_size=3)),
    ),
    st.sampled_from(["", "user", "assistant", "tool", "function", "system", "odd"]),
    st.one_of(st.just(""), KINDS),
)


@settings(deadline=None)
@given(st.sampled_from(sorted(FORMATS)), st.lists(messages, min_size=1, max_size=3))
def test_whatever_a_format_can_read_gives_steps_and_no_error(form: str, said: list[dict[str, object]]) -> None:
    try:
        found = steps(form, said)
    except MalformedRequest:
        return
    assert all(len(step.key) == 8 and len(step.name) <= 64 for step in found)


@settings(deadline=None)
@given(st.sampled_from(sorted(READERS)), scraps)
def test_not_even_what_no_format_reads_breaks_it(form: str, scrap: object) -> None:
    assert isinstance(READERS[form](Raw(msgspec.json.encode(scrap)), b"0" * 16), list)
