"""Which answers may be billed for more than they show."""

import pytest
from msgspec import Raw

from holdfast.wire.call import Call
from holdfast.wire.reasoning import may_be_hidden


@pytest.mark.parametrize(
    ("model", "hidden"),
    [
        ("gpt-5.1", True),
        ("openai/gpt-5-mini", True),
        ("ft:o4-mini-2025-04-16:org::id", True),
        ("codex-mini-latest", True),
        ("google/gemini-3-pro", True),
        ("gpt-4o-mini", False),
        ("openai/gpt-4.1", False),
        ("openai/gpt-oss-120b", False),
        ("claude-sonnet-4-5", False),
        ("claude-opus-4-20250514", False),
        ("claude-3-7-sonnet-latest", False),
        ("anthropic.claude-haiku-4-5-v1:0", False),
        ("claude-opus-5", True),
        ("anthropic/claude-haiku-5-5", True),
        ("claude-fable-5-2", True),
        ("llama-3.3-70b", False),
        ("solo1", False),
        ("sim-reasoning", False),
    ],
)
def test_models_that_keep_their_thoughts_back_are_known_by_their_names(model: str, hidden: bool) -> None:
    assert may_be_hidden(Call(model=model), model) == hidden


@pytest.mark.parametrize(
    ("thinking", "hidden"),
    [('{"type":"enabled","budget_tokens":2000}', True), ('{"type":"adaptive"}', True), ('{"type":"disabled"}', False)],
)
def test_anthropics_models_think_when_told_to(thinking: str, hidden: bool) -> None:
    call = Call(model="claude-sonnet-4-5", params=Raw(f'{{"thinking":{thinking}}}'.encode()))
    assert may_be_hidden(call, "claude-sonnet-4-5") == hidden
