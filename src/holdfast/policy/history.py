"""Which conversation a request continues, told from its messages alone.

An agent resends its whole history with every turn. So the state in which an answer leaves a conversation is known: the messages of the
request plus the answer. A later request that begins with such a state continues that conversation. Several conversations may be in the
same state (equal beginnings, equal answers); each is continued once, the youngest first.

Leading system prompts do not decide: agents put the time of day there. They only break ties.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from msgspec import Struct, structs

from holdfast.wire.call import Turn


class Place(Struct, frozen=True):
    """A state of a conversation. decision: the last one made there, "" before the first. turns, ignored: messages of the request it
    answered, and how many of them have no digest. lead: digest of the leading system prompts, 16 bytes, none without any."""

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


class Places(Protocol):
    """Where conversations stand, told by the hash of what was said (16 bytes); shared by all who continue the same conversations.

    Bounded: the oldest is forgotten first. `OwnPlaces` here, `shared.conversations.SharedPlaces` for several processes.
    """

    salt: bytes
    """At most 64 bytes that make the hashes here unlike those elsewhere, so that nobody can choose messages whose hashes crowd together."""

    def take(self, states: Sequence[bytes], lead: bytes) -> tuple[int, Place] | None:
        """Take the place in the last of `states` in which there is one; its index there and the place.

        Each place is taken once: the youngest with this `lead` first, else the youngest. Where all of a state are taken, the one taken
        last is found again: whoever extends it too is a branch of the same conversation. Not so where nothing was answered yet (no
        turns): whoever asks the same after somebody has begun anew begins a conversation of its own.
        """

    def put(self, state: bytes, place: Place) -> None:
        """A conversation now stands here, or again."""

    def response(self, key: bytes) -> Remembered | None: ...

    def remember(self, key: bytes, interaction: str, tokens: int) -> None:
        """Keeps the larger number of tokens."""


class _State(Struct):
    free: list[Place]  # conversations in this state that nobody has continued yet
    last: Place | None = None  # the one continued last


class OwnPlaces:
    """The memory of one process: at most `capacity` places and as many states, the state longest untouched forgotten first, and in one
    state at most `per_state`."""

    def __init__(self, capacity: int = 20_000, per_state: int = 1_000) -> None:
        self.salt = b""  # a dict has its own
        self._capacity = capacity
        self._per_state = min(per_state, capacity)
        self._states: OrderedDict[bytes, _State] = OrderedDict()
        self._free = 0
        self._responses: OrderedDict[bytes, Remembered] = OrderedDict()

    def take(self, states: Sequence[bytes], lead: bytes) -> tuple[int, Place] | None:
        known = self._states
        for index in range(len(states) - 1, -1, -1):
            found = known.get(states[index])
            if found is not None and (place := self._take(found, lead)) is not None:
                return index, place
        return None

    def _take(self, state: _State, lead: bytes) -> Place | None:
        free = state.free
        if free:
            same_lead = (at for at in range(len(free) - 1, -1, -1) if free[at].lead == lead)
            state.last = free.pop(next(same_lead, -1))
            self._free -= 1
            return state.last
        return None if state.last is None or not state.last.turns else state.last

    def put(self, state: bytes, place: Place) -> None:
        known = self._states.pop(state, None) or _State([])
        known.free.append(place)
        self._free += 1
        if len(known.free) > self._per_state:
            del known.free[0]
            self._free -= 1
        self._states[state] = known
        while self._free > self._capacity or len(self._states) > self._capacity:
            self._free -= len(self._states.popitem(last=False)[1].free)

    def response(self, key: bytes) -> Remembered | None:
        return self._responses.get(key)

    def remember(self, key: bytes, interaction: str, tokens: int) -> None:
        known = self._responses.pop(key, None)
        self._responses[key] = Remembered(interaction, tokens if known is None else max(tokens, known.tokens))
        if len(self._responses) > self._capacity:
            self._responses.popitem(last=False)


class Conversations:
    """Puts requests into their conversations. places: what is known of them so far."""

    def __init__(self, places: Places | None = None) -> None:
        self._places = OwnPlaces() if places is None else places

    def of_response(self, agent: str, response_id: str) -> Remembered | None:
        """What the provider's answer `response_id` to `agent` belonged to, None when it is not known (any more)."""
        return self._places.response(self._response_key(agent, response_id))

    def remember_response(self, agent: str, response_id: str, interaction: str, tokens: int = 0) -> None:
        """A later request may name this answer instead of resending the history (`previous_response_id`).

        tokens: see `Remembered`. Of one answer, or of one history that the provider keeps, the most that was ever reported is kept.
        """
        self._places.remember(self._response_key(agent, response_id), interaction, tokens)

    def claim(self, scope: str, turns: Sequence[Turn], new_interaction: str, *, fixed: bool = False) -> Claim:
        """Find the conversation that a request continues.

        scope: what never shares a conversation (agent, run, user). new_interaction: the id to use for a new one. fixed: the id was
        given from outside; only states of that very interaction count then.
        """
        lead, body = _split(turns)
        states = _states(_hash(f"{scope}|{new_interaction}" if fixed else scope, self._places.salt), body)
        found = self._places.take(states[1:], lead)
        if found is None:
            here = Place(new_interaction, "", len(turns), _ignored(turns), lead)
            return Claim(interaction=new_interaction, continues=None, inherited=0, state=states[-1], here=here, taken_from=b"")
        index, place = found
        here = Place(place.interaction, "", len(turns), _ignored(turns), lead)
        inherited = place.turns if place.lead == lead and _ignored(turns[: place.turns]) == place.ignored else 0
        taken_from = states[index + 1]
        return Claim(
            interaction=place.interaction, continues=place, inherited=inherited, state=states[-1], here=here, taken_from=taken_from
        )

    def answered(self, claim: Claim, answer: Sequence[Turn], decision: str) -> None:
        """The request of `claim` was answered: its conversation now waits for a request that begins with both."""
        state = claim.state
        for turn in answer:
            state = _extend(state, turn)
        self._places.put(state, structs.replace(claim.here, decision=decision))

    def failed(self, claim: Claim) -> None:
        """The request of `claim` got no answer: the conversation is back where it was, and the same request again continues it."""
        if claim.continues is not None:
            self._places.put(claim.taken_from, claim.continues)
        else:
            self._places.put(claim.state, structs.replace(claim.here, turns=0, ignored=0))

    def _response_key(self, agent: str, response_id: str) -> bytes:
        """Of one size, because ids are the agents' to make up, and each agent's own."""
        return _hash(f"{len(agent)}:{agent}{response_id}", self._places.salt)


def _ignored(turns: Sequence[Turn]) -> int:
    return [turn.digest for turn in turns].count(b"")


def _split(turns: Sequence[Turn]) -> tuple[bytes, Sequence[Turn]]:
    count = 0
    while count < len(turns) and turns[count].role in ("system", "developer"):
        count += 1
    lead = b"".join([turn.digest for turn in turns[:count]])
    return lead if len(lead) <= 16 else blake2b(lead, digest_size=16).digest(), turns[count:]


def _hash(text: str, salt: bytes) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=salt).digest()


def _states(state: bytes, turns: Sequence[Turn]) -> list[bytes]:
    """The state before each turn, and after the last."""
    states = [state]
    for turn in turns:
        state = _extend(state, turn)
        states.append(state)
    return states


def _extend(state: bytes, turn: Turn) -> bytes:
    """Turns without a digest (reasoning that some agents send back and some do not) leave the state as it is."""
    return blake2b(state + turn.digest, digest_size=16).digest() if turn.digest else state
