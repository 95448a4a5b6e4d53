"""What a run came to: the lines at its end on the terminal, and the same as JSON for programs."""

import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct

from holdfast.clock import SECOND
from holdfast.errors import StorageError
from holdfast.events.run import EndReason
from holdfast.events.usage import Usage
from holdfast.money import Nano, to_usd

_VERDICTS: dict[EndReason, str] = {
    "exited": "the agent ended by itself",
    "signal": "the agent was ended by a signal",
    "timeout": "stopped at the time limit",
    "limit": "stopped at a hard limit",
    "killed": "stopped by the kill switch",
}
_GREEN, _RED, _BOLD, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


class Summary(Struct, frozen=True, kw_only=True):
    """One run.

    exit_code: what `holdfast run` exits with. cost: nano-dollars, of the calls whose cost is known; unpriced: the number of the others.
    attempts: at providers, so >= calls less refusals. last_error: what the agent heard last that was no answer. limits: those that were
    reached, as `Limit.describe` puts them. kill: what was stopped with the kill switch, by whom and why. survivors: processes that
    could not be ended. look_up: arguments with which `holdfast decisions list` and `holdfast interactions list` find this run's record,
    where they need any.
    """

    run: str
    agent: str
    release: str
    user: str = ""
    exit_code: int
    reason: EndReason
    duration_ns: int
    calls: int
    attempts: int
    usage: Usage
    cost: Nano
    unpriced: int
    decisions: int
    refusals: int
    errors: int
    last_error: str = ""
    limits: tuple[str, ...] = ()
    kill: str = ""
    survivors: tuple[int, ...] = ()
    look_up: str = ""


class _Document(Struct, frozen=True, kw_only=True):
    """The summary as others read it: seconds and USD; a cost that is not known is null, and `cost_usd` is then only a part."""

    run: str
    agent: str
    release: str
    user: str
    exit_code: int
    reason: EndReason
    duration_s: float
    calls: int
    attempts: int
    tokens: Usage
    cost_usd: msgspec.Raw
    calls_of_unknown_cost: int
    decisions: int
    refusals: int
    errors: int
    last_error: str
    limits: tuple[str, ...]
    kill: str
    survivors: tuple[int, ...]


def render(summary: Summary, colour: bool) -> str:
    """A few lines for a person, the verdict first; ends with a newline. colour: with ANSI escapes."""
    good = summary.reason == "exited" and summary.exit_code == 0
    verdict = f"{_VERDICTS[summary.reason]} (exit {summary.exit_code}) after {_duration(summary.duration_ns)}"
    if colour:
        verdict = f"{_BOLD}{_GREEN if good else _RED}{verdict}{_PLAIN}"
    rows = [
        ("agent", f"{summary.agent} {summary.release}" + (f" for {summary.user}" if summary.user else "")),
        *(("limit", limit) for limit in summary.limits if limit not in summary.last_error),
        *((("killed", _printable(summary.kill)),) if summary.kill else ()),
        *((("error", _printable(summary.last_error)),) if summary.last_error else ()),
        ("cost", _cost(summary)),
        ("calls", _calls(summary)),
        ("tokens", _tokens(summary.usage)),
        ("record", _record(summary)),
        ("run", summary.run),
    ]
    if summary.survivors:
        rows.insert(0, ("STILL RUNNING", "process " + ", ".join(map(str, summary.survivors)) + " could not be ended"))
    return "".join(f"{line}\n" for line in (f"holdfast: {verdict}", *(f"  {name:<8} {text}" for name, text in rows)))


def to_json(summary: Summary) -> bytes:
    """The summary as a JSON document with a newline at its end."""
    known = summary.cost or not summary.unpriced
    document = _Document(
        **{name: getattr(summary, name) for name in Summary.__struct_fields__ if name in _Document.__struct_fields__},
        duration_s=round(summary.duration_ns / SECOND, 3),
        tokens=summary.usage,
        cost_usd=msgspec.Raw(to_usd(summary.cost) if known else "null"),
        calls_of_unknown_cost=summary.unpriced,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def write(summary: Summary, path: Path) -> None:
    """Put the JSON document at `path`, whole or not at all; raises StorageError."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("xb") as file:
            file.write(to_json(summary))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"the summary cannot be written to {path}: {error.strerror}; name another file with --summary") from error


def _cost(summary: Summary) -> str:
    if not summary.unpriced:
        return f"${to_usd(summary.cost)}"
    unknown = f"{_count(summary.unpriced, 'call')} of unknown cost"
    return f"${to_usd(summary.cost)} and {unknown}" if summary.cost else f"not known: {unknown}"


def _calls(summary: Summary) -> str:
    return f"{summary.calls:,} ({_count(summary.attempts, 'attempt')}), {summary.refusals:,} refused"


def _record(summary: Summary) -> str:
    """What is on record, and the command that shows it; what never became a decision is told by its interaction."""
    undecided = not summary.decisions and (summary.errors or summary.refusals)
    command = f"holdfast {'interactions' if undecided else 'decisions'} list"
    return f"{_count(summary.decisions, 'decision')}, {_count(summary.errors, 'error')}: {command}{summary.look_up}"


def _printable(text: str) -> str:
    """On one line, without characters that act on a terminal: others than Holdfast may have worded it."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _tokens(usage: Usage) -> str:
    cached = f" ({usage.cached_input:,} cached)" if usage.cached_input else ""
    reasoning = f" ({usage.reasoning:,} reasoning)" if usage.reasoning else ""
    return f"{usage.input:,} in{cached}, {usage.output:,} out{reasoning}"


def _duration(ns: int) -> str:
    seconds = ns / SECOND
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
