"""Tools that a request lets the provider run itself: they run before anybody sees the answer, so they are stopped at the request."""

import msgspec
from msgspec import Raw, Struct

_AGENT_RUNS = (
    *("function", "custom", "namespace", "local_shell", "shell", "apply_patch", "tool_search"),
    *("bash_", "text_editor_", "computer_", "memory_", "browser_"),
)
"""How the types of tools begin that the agent runs, in both families."""


class _Tool(Struct, gc=False):
    type: str | None = None
    name: str | None = None
    server_label: str | None = None


_read = msgspec.json.Decoder(list[_Tool]).decode


def provider_runs(tools: Raw, killed: str) -> bool:
    """Whether the `tools` of a request let the provider run the tool of this name: as the request names it, or its type less its version
    (`web_search` is also `web_search_20250305` and `web_search_preview`)."""
    try:
        offered = _read(tools)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return any(_is(tool, killed) for tool in offered if tool.type and not tool.type.startswith(_AGENT_RUNS))


def _is(tool: _Tool, name: str) -> bool:
    kind = tool.type or ""
    version = kind.removeprefix(f"{name}_") if kind.startswith(f"{name}_") else "none"
    return name in (tool.name, kind, tool.server_label) or not version.removeprefix("preview").strip("_0123456789")
