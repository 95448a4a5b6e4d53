"""Scripted answers, so that a real agent does a task that is known beforehand.

A script is chosen by model name and offered tools; its answer by the number of assistant turns already in the history.
"""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.errors import ConfigError
from holdfast.testing.simulated_provider.answer import Answer, ToolUse
from holdfast.testing.simulated_provider.prompt import OfferedTool, Prompt

_DONE = Answer(text="Done.")


class ScriptedCall(Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call; `arguments` is the literal JSON object, or the text for a custom tool."""

    name: str
    arguments: dict[str, Any] | str = {}


class ScriptedAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    text: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()


class Script(Struct, frozen=True, forbid_unknown_fields=True):
    """Answers in order. model: a pattern such as `claude-*`. tool: has to be offered; so have all tools that the answers call."""

    answers: tuple[ScriptedAnswer, ...]
    model: str = "*"
    tool: str = ""

    def fits(self, prompt: Prompt) -> bool:
        """Whether this script answers the prompt; calls without its tools (titles, quota checks) are left to `sim-ok`."""
        needed = {call.name for answer in self.answers for call in answer.tool_calls}
        if self.tool:
            needed.add(self.tool)
        return fnmatchcase(prompt.model, self.model) and needed <= {tool.name for tool in prompt.tools}

    def answer(self, prompt: Prompt) -> Answer:
        """The answer whose turn it is; "Done." after the last one."""
        if prompt.assistant_turns >= len(self.answers):
            return _DONE
        scripted = self.answers[prompt.assistant_turns]
        offered = {tool.name: tool for tool in prompt.tools}
        return Answer(text=scripted.text, calls=tuple(_call(call, offered[call.name]) for call in scripted.tool_calls))


class Scripts(Struct, frozen=True, forbid_unknown_fields=True):
    """What a script file holds; the first script that fits a prompt answers it."""

    scripts: tuple[Script, ...] = ()

    def answer(self, prompt: Prompt) -> Answer | None:
        """The scripted answer, or None when no script fits."""
        return next((script.answer(prompt) for script in self.scripts if script.fits(prompt)), None)


def load(path: Path) -> Scripts:
    """The scripts of a JSON file: `{"scripts": […]}`, or the list of answers of a single one. Raises ConfigError."""
    try:
        loaded = msgspec.json.decode(path.read_bytes(), type=Scripts | tuple[ScriptedAnswer, ...])
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a script: {error}") from None
    return loaded if isinstance(loaded, Scripts) else Scripts((Script(loaded),))


def _call(call: ScriptedCall, tool: OfferedTool) -> ToolUse:
    arguments = call.arguments if isinstance(call.arguments, str) else msgspec.json.encode(call.arguments).decode()
    return ToolUse(call.name, arguments, tool.custom, tool.namespace)
