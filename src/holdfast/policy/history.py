"""Which conversation a request continues, told from its messages alone.

An agent resends its whole history with every turn. So the state in which an answer leaves a conversation is known: the messages of the
request plus the answer. A later request that begins with such a state continues that conversation. Several conversations may be in the
same state (equal beginnings, equal answers); each is continued once, the youngest first.

Leading system prompts do not decide: agents put the time of day there. They only break ties.
"""

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct, structs

from holdfast.wire.call import Turn


class Place(Struct, frozen=True):
    """A state of a conversation. decision: the last one made there, "" before the first. turns, ignored: messages of the request it
    answered, and how many of them have no digest. lead: digest of the leading system prompts."""

    interaction: str
    decision: str
    turns: int
    ignored: int
    lead: bytes


class Remembered(Struct, frozen=True):
    """What is known of an answer. tokens: input and output together, as its provider reported them; 0 when it did not (yet)."""

    interaction: str
    tokens: int


class Claim(Struct, frozen=True, kw_only=True):
    """A request put into its conversation; hand it back to `answered` or `failed`.

    continues: the place that the request extends, None for a new conversation. inherited: how many messages of the request that
    place's record already holds, word for word in meaning.
    """

    interaction: str
    continues: Place | None
    inherited: int
    state: bytes
    here: Place  # where the conversation stands once this request is answered; its decision is not known yet
    taken_from: bytes


class _Known(Struct):
    free: list[Place]  # conversations in this state that nobody has continued yet
    last: Place | None = None  # the one continued last: a second request that extends it is a branch of the same conversation


class Conversations:
    """Bounded memory of the states that conversations were left in: at most `capacity`, the longest untouched forgotten first."""

    def __init__(self, capacity: int = 20_000, per_state: int = 1_000) -> None:
        self._capacity = capacity
        self._per_state = per_state
        self._known: dict[bytes, _Known] = {}
        self._responses: dict[bytes, Remembered] = {}

    def of_response(self, agent: str, response_id: str) -> Remembered | None:
        """What the provider's answer `response_id` to `agent` belonged to, None when it is not known (any more)."""
        return self._responses.get(_response_key(agent, response_id))

    def remember_response(self, agent: str, response_id: str, interaction: str, tokens: int = 0) -> None:
        """A later request may name this answer instead of resending the history (`previous_response_id`).

        tokens: see `Remembered`. Of one answer, or of one history that the provider keeps, the most that was ever reported is kept.
        """
        key = _response_key(agent, response_id)
        known = self._responses.pop(key, None)
        self._responses[key] = Remembered(interaction, tokens if known is None else max(tokens, known.tokens))
        if len(self._responses) > self._capacity:
            del self._responses[next(iter(self._responses))]

    def claim(self, scope: str, turns: Sequence[Turn], new_interaction: str, *, fixed: bool = False) -> Claim:
        """Find the conversation that a request continues.

        scope: what never shares a conversation (agent, run, user). new_interaction: the id to use for a new one. fixed: the id was
        given from outside; only states of that very interaction count then.
        """
        lead, body = _split(turns)
        states = _states(f"{scope}|{new_interaction}" if fixed else scope, body)
        for index in range(len(states) - 1, 0, -1):
            known = self._known.get(states[index])
            if known is not None and (place := _take(known, lead)) is not None:
                here = Place(place.interaction, "", len(turns), _ignored(turns), lead)
                inherited = place.turns if place.lead == lead and _ignored(turns[: place.turns]) == place.ignored else 0
                return Claim(
                    interaction=place.interaction,
                    continues=place,
                    inherited=inherited,
                    state=states[-1],
                    here=here,
                    taken_from=states[index],
                )
        here = Place(new_interaction, "", len(turns), _ignored(turns), lead)
        return Claim(interaction=new_interaction, continues=None, inherited=0, state=states[-1], here=here, taken_from=b"")

    def answered(self, claim: Claim, answer: Sequence[Turn], decision: str) -> None:
        """The request of `claim` was answered: its conversation now waits for a request that begins with both."""
        state = claim.state
        for turn in answer:
            state = _extend(state, turn)
        self._remember(state, structs.replace(claim.here, decision=decision))

    def failed(self, claim: Claim) -> None:
        """The request of `claim` got no answer: the conversation is back where it was, and the same request again continues it."""
        if claim.continues is not None:
            self._remember(claim.taken_from, claim.continues)
        else:
            self._remember(claim.state, structs.replace(claim.here, turns=0, ignored=0))

    def _remember(self, state: bytes, place: Place) -> None:
        known = self._known.pop(state, None) or _Known([])
        known.free.append(place)
        if len(known.free) > self._per_state:
            del known.free[0]
        self._known[state] = known
        if len(self._known) > self._capacity:
            del self._known[next(iter(self._known))]


def _response_key(agent: str, response_id: str) -> bytes:
    """Of one size, because ids are the agents' to make up, and each agent's own."""
    return blake2b(f"{len(agent)}:{agent}{response_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _take(known: _Known, lead: bytes) -> Place | None:
    """The youngest place with the same system prompts, else the youngest, else the branch point."""
    if known.free:
        same_lead = (at for at in range(len(known.free) - 1, -1, -1) if known.free[at].lead == lead)
        known.last = known.free.pop(next(same_lead, -1))
    return known.last


def _ignored(turns: Sequence[Turn]) -> int:
    return [turn.digest for turn in turns].count(b"")


def _split(turns: Sequence[Turn]) -> tuple[bytes, Sequence[Turn]]:
    count = 0
    while count < len(turns) and turns[count].role in ("system", "developer"):
        count += 1
    return b"".join([turn.digest for turn in turns[:count]]), turns[count:]


def _states(scope: str, turns: Sequence[Turn]) -> list[bytes]:
    """The state before each turn, and after the last."""
    state = blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    states = [state]
    for turn in turns:
        state = _extend(state, turn)
        states.append(state)
    return states


def _extend(state: bytes, turn: Turn) -> bytes:
    """Turns without a digest (reasoning that some agents send back and some do not) leave the state as it is."""
    return blake2b(state + turn.digest, digest_size=16).digest() if turn.digest else state
