"""What `holdfast kill` and `holdfast resume` share: what is meant, who does it, and that every gateway has confirmed it."""

import os
import pwd
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import Struct

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.policy.kill import Kill, KillScope
    from holdfast.shared.presence import Gateway

Agent = Annotated[str, typer.Option("--agent", metavar="NAME", help="One agent.", show_default=False)]
Release = Annotated[str, typer.Option("--release", metavar="TAG", help="One release, of whichever agent.", show_default=False)]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="One model: as agents name it, or PROVIDER/MODEL.", show_default=False)]
Tool = Annotated[
    str,
    typer.Option(
        "--tool", metavar="NAME", help="One tool: calls through /tools/NAME and answers that call it are stopped.", show_default=False
    ),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; agents, logs and `holdfast status` say it.")]
Author = Annotated[str, typer.Option("--author", metavar="WHO", help="Who does it (default: user@host).", show_default=False)]

PATIENCE_S = 5.0
"""How long a gateway may take to confirm. It looks every 20 ms; one that is silent for so long is stopped or stuck."""
_POLL_S = 0.002
_LONGEST = {"name": 256, "--reason": 1000, "--author": 128}


class Confirmation(Struct, frozen=True):
    """gateways: that have confirmed; silent: those that have not, although they live. after_ms: since the change was made."""

    gateways: int
    silent: "tuple[Gateway, ...]"
    after_ms: float


def scope_of(everything: bool, **names: str) -> "tuple[KillScope, str]":
    """The one thing that the options name."""
    given = [(scope, name.strip()) for scope, name in names.items() if name.strip()]
    if len(given) + everything != 1:
        raise UsageError("name one thing: --all, --agent NAME, --release TAG, --model NAME or --tool NAME")
    if everything:
        return "all", ""
    within("name", given[0][1])
    return given[0]  # type: ignore[return-value]  # the keywords are the scopes


def within(what: str, text: str) -> str:
    if len(text) > _LONGEST[what]:
        raise UsageError(f"the {what} is longer than {_LONGEST[what]} characters")
    return text


def whoever() -> str:
    """The user at this machine, as far as the system knows."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a user without an entry in the password file: containers
        user = str(os.getuid())
    return f"{user}@{os.uname().nodename}"


def confirmed(data_dir: Path, serial: int, clock_ns: Callable[[], int]) -> Confirmation:
    """Wait until every gateway that lives has carried out the state of this serial, but not longer than PATIENCE_S."""
    from holdfast.shared.presence import present

    began_ns = clock_ns()
    while True:
        living = present(data_dir)
        silent = tuple([each.gateway for each in living if each.confirmed < serial])
        after_ns = clock_ns() - began_ns
        if not silent or after_ns > PATIENCE_S * 1e9:
            return Confirmation(len(living) - len(silent), silent, round(after_ns / 1e6, 1))
        time.sleep(_POLL_S)


def tell_silent(silent: "Sequence[Gateway]") -> None:
    """What is known of gateways that did not confirm, and what to do about them."""
    from holdfast.cli._output import note

    for gateway in silent:
        kind = f"the gateway of run {gateway.run}" if gateway.run else "a worker"
        note(
            f"holdfast: process {gateway.pid}, {kind}, has not confirmed within {PATIENCE_S:g} s: it is stopped or stuck. "
            f"What it was about to send it may still send; to be sure: kill -9 {gateway.pid}"
        )


def tell_nobody(data_dir: Path) -> None:
    from holdfast.cli._output import note

    note(f"No gateway is running on {data_dir}; this holds for those that start there. --data-dir names another place.")


def record(kill: "Kill") -> dict[str, Any]:
    """A kill as JSON has it."""
    from holdfast.clock import to_iso

    return {
        "scope": kill.scope,
        "value": kill.value,
        "mode": kill.mode,
        "reason": kill.reason,
        "author": kill.author,
        "since": to_iso(kill.at),
    }
