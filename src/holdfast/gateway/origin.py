"""Whose call it is: what the caller says of itself, what the configuration fixes, and the conversation that the request continues."""

from holdfast.gateway.identity import Caller, user_id
from holdfast.gateway.parts import Parts
from holdfast.gateway.recording import Origin
from holdfast.policy.history import Claim
from holdfast.wire.call import Call


def origin_of(parts: Parts, caller: Caller, call: Call, call_id: str) -> tuple[Origin, Claim | None]:
    """The origin of `call`, and its claim to a conversation where the request holds a history."""
    run, user = parts.options.run, parts.options.user or caller.user or user_id(call.user)
    interaction, identified_by = caller.interaction, caller.identified_by
    claim = None
    if not interaction and call.conversation:
        remembered = parts.conversations.of_response(caller.name, call.conversation)
        interaction, identified_by = "" if remembered is None else remembered.interaction, "conversation"
    if call.turns:
        scope = f"{caller.name!r}|{run}|{user!r}"  # quoted: no name may look like another name and user
        claim = parts.conversations.claim(scope, call.turns, interaction or call_id, fixed=bool(interaction))
        identified_by = identified_by if interaction else "history"
        interaction = claim.interaction
    if call.conversation and interaction:  # the provider's own id may be all that later requests have in common with this one
        parts.conversations.remember_response(caller.name, call.conversation, interaction)
    origin = Origin(
        agent=caller.name,
        release=caller.release,
        run=run,
        user=user,
        interaction=interaction,
        identified_by=identified_by,
        keep_content=caller.agent.content == "full",
    )
    return origin, claim


def history_of(parts: Parts, caller: Caller, call: Call) -> int:
    """Tokens of the answer that `call` continues (`previous_response_id`); 0 where it continues none, or nobody here saw its usage."""
    remembered = parts.conversations.of_response(caller.name, call.continues) if call.continues else None
    return 0 if remembered is None else remembered.tokens
