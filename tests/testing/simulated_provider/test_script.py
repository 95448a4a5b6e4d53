from pathlib import Path

import pytest

from holdfast.errors import ConfigError
from holdfast.testing.simulated_provider import Script, ScriptedAnswer, ScriptedCall, Scripts
from holdfast.testing.simulated_provider.answer import ToolUse
from holdfast.testing.simulated_provider.prompt import OfferedTool, Prompt
from holdfast.testing.simulated_provider.script import load

TASK = Script(
    (ScriptedAnswer(text="First.", tool_calls=(ScriptedCall("Bash", {"command": "ls"}),)), ScriptedAnswer(text="All done.")),
    model="claude-*",
)
BASH = OfferedTool("Bash")


def ask(turns: int = 0, model: str = "claude-x", tools: tuple[OfferedTool, ...] = (BASH,)) -> Prompt:
    return Prompt(model=model, assistant_turns=turns, tools=tools)


def test_the_number_of_assistant_turns_chooses_the_answer() -> None:
    scripts = Scripts((TASK,))
    first, second, third = (scripts.answer(ask(turns)) for turns in range(3))
    assert first and second and third
    assert (first.text, first.calls) == ("First.", (ToolUse("Bash", '{"command":"ls"}'),))
    assert (second.text, third.text) == ("All done.", "Done.")


@pytest.mark.parametrize("prompt", [ask(tools=()), ask(model="gpt-5"), ask(tools=(OfferedTool("bash"),))])
def test_a_call_without_the_scripts_model_or_tools_is_not_scripted(prompt: Prompt) -> None:
    assert Scripts((TASK,)).answer(prompt) is None


def test_the_first_script_that_fits_answers() -> None:
    plain = Script((ScriptedAnswer(text="Hello."),), tool="Read")
    scripts = Scripts((TASK, plain))
    answer = scripts.answer(ask(tools=(OfferedTool("Read"),)))
    assert answer and answer.text == "Hello."
    assert scripts.answer(ask(tools=())) is None


def test_a_call_of_a_custom_tool_takes_text_and_keeps_the_tools_namespace() -> None:
    script = Script((ScriptedAnswer(tool_calls=(ScriptedCall("patch", "*** Begin"),)),))
    answer = script.answer(ask(tools=(OfferedTool("patch", custom=True, namespace="edit"),)))
    assert answer.calls == (ToolUse("patch", "*** Begin", custom=True, namespace="edit"),)


def test_a_file_holds_scripts_or_the_answers_of_one(tmp_path: Path) -> None:
    file = tmp_path / "script.json"
    file.write_text('{"scripts": [{"model": "gpt-*", "answers": [{"text": "A"}]}]}')
    assert load(file) == Scripts((Script((ScriptedAnswer(text="A"),), model="gpt-*"),))
    file.write_text('[{"text": "A"}]')
    assert load(file) == Scripts((Script((ScriptedAnswer(text="A"),)),))


@pytest.mark.parametrize("text", ["", "{", '{"script": []}', '[{"txt": "A"}]', "\xff"])
def test_a_file_that_is_no_script_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "script.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"script\.json"):
        load(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json: No such file"):
        load(tmp_path / "nowhere.json")
