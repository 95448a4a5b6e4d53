"""The kill switch as a value: what is killed, and whom that stops."""

from collections.abc import Iterable
from typing import Literal, get_args

from msgspec import Struct

KillScope = Literal["all", "agent", "release", "model", "tool"]
KillMode = Literal["drain", "cut"]
SCOPES: tuple[KillScope, ...] = get_args(KillScope)


class Kill(Struct, frozen=True, kw_only=True):
    """One kill. value: the name of the agent, release, model or tool; "" for all. mode: whether calls in progress may end ("drain") or
    are cut off. at: wall clock in nanoseconds."""

    scope: KillScope
    value: str = ""
    mode: KillMode = "drain"
    reason: str = ""
    author: str = ""
    at: int = 0

    def describe(self) -> str:
        """For people: `everything`, `agent support`."""
        return "everything" if self.scope == "all" else f"{self.scope} {self.value}"

    @property
    def why(self) -> str:
        """For people: ` by ann@host: it refunds everybody`, "" where neither is known."""
        author = f" by {self.author}" if self.author else ""
        return f"{author}: {self.reason.rstrip('.')}" if self.reason else author

    def is_on(self, scope: KillScope, value: str) -> bool:
        return self.scope == scope and self.value == value


class Kills:
    """The kills that hold at one time. tools: those on tools, by name. unreadable: nobody knows what is killed, so everything is.

    Names are compared as they are: no patterns, no folding of case.
    """

    __slots__ = ("_by_scope", "active", "tools", "unreadable")

    def __init__(self, active: Iterable[Kill] = (), *, unreadable: bool = False) -> None:
        self.active = tuple(active)
        self.unreadable = unreadable
        self._by_scope = {scope: {kill.value: kill for kill in self.active if kill.scope == scope} for scope in SCOPES}
        self.tools = self._by_scope["tool"]

    def stopping(self, agents: Iterable[str], release: str, models: Iterable[str]) -> Kill | None:
        """The kill that stops a call: of everything, of one of the names that its agent goes by, of its release, of one of the names of
        its model. Where several do, one that cuts comes first."""
        of = self._by_scope
        asked: tuple[tuple[KillScope, Iterable[str]], ...] = (("all", ("",)), ("agent", agents), ("release", (release,)), ("model", models))
        found = [of[scope][name] for scope, names in asked if of[scope] for name in names if name in of[scope]]
        return next((kill for kill in found if kill.mode == "cut"), found[0] if found else None)

    def forbidden_tool(self, called: Iterable[str]) -> Kill | None:
        """The kill of one of the tools that were called."""
        return next((self.tools[name] for name in called if name in self.tools), None)

    def with_kill(self, kill: Kill) -> "Kills":
        """One more; it takes the place of an earlier one on the same thing."""
        return Kills((*(each for each in self.active if not each.is_on(kill.scope, kill.value)), kill))

    def without(self, scope: KillScope, value: str) -> "Kills":
        return Kills(each for each in self.active if not each.is_on(scope, value))


NONE = Kills()
