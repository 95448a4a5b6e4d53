"""Admission queue: who may wait, and whose turn it is: bounded, fair between agents, with priorities that age."""

from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from holdfast.clock import SECOND

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
"""The most urgent first."""

HEAD_START_NS = 15 * SECOND
"""What each class is ahead of the next: a call that came so much earlier goes first although its priority is one lower."""


class QueueBounds(Struct, frozen=True, kw_only=True):
    """Of one process. calls: that wait; a part of those that may be in progress at all. bytes: of their requests' bodies."""

    calls: int = 3_200
    bytes: int = 128 * 1024 * 1024


class QueueOptions(Struct, frozen=True, kw_only=True):
    """Of one agent. waits: whether its calls wait when nothing can serve them. longest_ns: from a call's first wait to the end of its last,
    None: as long as the whole call may take. priority: the highest that a call may have, and that of one that asks for none."""

    waits: bool = False
    longest_ns: int | None = None
    priority: Priority = "normal"


class Ticket:
    """A call that waits. rank: place of its priority in `PRIORITIES`. size: of its body. keys: what it waits for, any of them will do.
    came_ns: when it first did. returned: it was let out before, in vain."""

    __slots__ = ("agent", "came_ns", "keys", "rank", "returned", "size")

    def __init__(self, agent: str, rank: int, size: int, came_ns: int) -> None:
        self.agent = agent
        self.rank = rank
        self.size = size
        self.came_ns = came_ns
        self.keys: tuple[str, ...] = ()
        self.returned = False


def rank_of(asked: str, most: Priority) -> int:
    """The rank of a call whose agent may have `most`: what it asks for itself, never above that. What is no priority asks for nothing."""
    highest = PRIORITIES.index(most)
    return max(highest, PRIORITIES.index(asked)) if asked in PRIORITIES else highest


class WaitingRoom:
    """All that wait in one process, however many things they wait for."""

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._by_rank: tuple[dict[Ticket, None], ...] = tuple({} for _ in PRIORITIES)
        self._taken: dict[str, tuple[int, int]] = {}
        self.calls = 0
        self.bytes = 0

    def __iter__(self) -> Iterator[Ticket]:
        """The most urgent class first, in each the one that came in first."""
        return (ticket for tickets in self._by_rank for ticket in tickets)

    def by_agent(self) -> dict[str, int]:
        """How many calls of each agent wait."""
        return {agent: calls for agent, (calls, _) in self._taken.items()}

    def displaced_by(self, ticket: Ticket) -> list[Ticket] | None:
        """Who must leave to let `ticket` in, None when it may not come in. Nothing is changed.

        Of a full room every agent that waits has an equal share. One that would keep within its own displaces the newest of the lowest
        priority, and those of its own priority whose agents have more than theirs; any other only its own calls of a lower priority. One
        that was here already displaces the newest of its priority, too.
        """
        bounds = self._bounds
        lacking = self.calls + 1 - bounds.calls, self.bytes + ticket.size - bounds.bytes
        if max(lacking) <= 0:
            return []
        taken = dict(self._taken)
        calls, size = taken.setdefault(ticket.agent, (0, 0))
        share = bounds.calls // len(taken), bounds.bytes // len(taken)
        within = calls < share[0] and size + ticket.size <= share[1]

        def may_displace(other: Ticket) -> bool:
            if other.rank > ticket.rank:
                return within or other.agent == ticket.agent
            calls, size = taken[other.agent]
            return ticket.returned or calls > share[0] or size > share[1]

        leaving: list[Ticket] = []
        for other in self._newest(ticket.rank if within or ticket.returned else ticket.rank + 1):
            if max(lacking) <= 0:
                break
            if (lacking[0] > 0 or other.size) and may_displace(other):
                leaving.append(other)
                lacking = lacking[0] - 1, lacking[1] - other.size
                calls, size = taken[other.agent]
                taken[other.agent] = calls - 1, size - other.size
        return leaving if max(lacking) <= 0 else None

    def add(self, ticket: Ticket) -> None:
        self._by_rank[ticket.rank][ticket] = None
        self._count(ticket, 1)

    def remove(self, ticket: Ticket) -> None:
        del self._by_rank[ticket.rank][ticket]
        self._count(ticket, -1)

    def _newest(self, highest: int) -> Iterator[Ticket]:
        """Those of this rank and less urgent ones: the lowest class first, in each the newest."""
        return (other for tickets in reversed(self._by_rank[highest:]) for other in reversed(tickets))

    def _count(self, ticket: Ticket, change: int) -> None:
        self.calls += change
        self.bytes += change * ticket.size
        calls, size = self._taken.get(ticket.agent, (0, 0))
        if calls + change:
            self._taken[ticket.agent] = (calls + change, size + change * ticket.size)
        else:
            del self._taken[ticket.agent]


class WaitingLine:
    """Those who wait for one thing. Within a priority agents take turns, and of one agent the first come is first.

    Priorities age: of the calls whose turn it is in each class the one goes first that came first, each class being `HEAD_START_NS` ahead
    of the next. So a flood of urgent calls holds up the others for that long, not for good.
    """

    __slots__ = ("_by_rank", "_length")

    def __init__(self) -> None:
        self._by_rank: tuple[dict[str, dict[Ticket, None]], ...] = tuple({} for _ in PRIORITIES)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def add(self, ticket: Ticket) -> None:
        """Behind the others of its agent and priority."""
        self._by_rank[ticket.rank].setdefault(ticket.agent, {})[ticket] = None
        self._length += 1

    def remove(self, ticket: Ticket) -> None:
        agents = self._by_rank[ticket.rank]
        own = agents[ticket.agent]
        del own[ticket]
        if not own:
            del agents[ticket.agent]
        self._length -= 1

    def first(self) -> Ticket:
        """Whose turn it is; there must be one. The turn then passes to the next agent, and the ticket stays in until it is removed."""
        in_front = (next(iter(next(iter(agents.values())))) for agents in self._by_rank if agents)
        ticket = min(in_front, key=_due_ns)
        agents = self._by_rank[ticket.rank]
        agents[ticket.agent] = agents.pop(ticket.agent)  # behind the others
        return ticket


def _due_ns(ticket: Ticket) -> int:
    return ticket.came_ns + ticket.rank * HEAD_START_NS
