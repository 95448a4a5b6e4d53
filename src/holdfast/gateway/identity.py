"""Who calls: agent and release from the key, user and interaction from headers, without a line of code in the agent."""

import re
import secrets
from hashlib import blake2b

from msgspec import Struct, structs

from holdfast.execution.upstream import Headers
from holdfast.gateway.options import UNRELEASED, AgentOptions

SESSION_HEADERS = (
    b"x-claude-code-session-id",  # Claude Code
    b"session-id",  # Codex
    b"session_id",  # Codex before 2026
)
"""Headers in which well-known agents name their session, the first that is present counts."""

_KEYS = frozenset({b"authorization", b"x-api-key", b"api-key"})
_READ = frozenset(
    _KEYS
    | {b"origin", b"traceparent", b"prefer", b"x-holdfast-webhook", *SESSION_HEADERS}
    | {b"x-holdfast-agent", b"x-holdfast-release", b"x-holdfast-user", b"x-holdfast-interaction"}
)
_MAX_ID = 128
_ID_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-")
_LOCAL_PAGE = re.compile(rb"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


class Caller(Struct, frozen=True):
    """The agent behind a request. interaction: as given from outside, else ""; identified_by: by what. prefers: it has a `Prefer`, or
    names a webhook."""

    agent: AgentOptions
    name: str
    release: str
    user: str
    interaction: str
    identified_by: str
    prefers: bool = False


class Identities:
    """Knows the agents' keys. Only keyed hashes are kept and looked up, so that no comparison takes longer for a better guess."""

    def __init__(self, agents: tuple[AgentOptions, ...]) -> None:
        self._salt = secrets.token_bytes(16)
        self._by_key = {self._hash(agent.key.encode()): _unnamed(agent) for agent in agents if agent.key}
        self._keyed = frozenset(agent.name for agent in agents if agent.key)
        self._keyless = {agent.name: agent for agent in agents if not agent.key}
        self._default = self._keyless.get("default") or next(iter(self._keyless.values()), None)

    def caller(self, headers: Headers, peer: str) -> Caller | None:
        """Who sent these headers from the IP address `peer`; None when the key is unknown."""
        given = _first_of_each(headers)
        known = self._by_key.get(self._hash(presented_key(given)))
        if known is None and _is_loopback(peer) and not _is_foreign_page(given.get(b"origin")):
            known = self._without_key(_text(given.get(b"x-holdfast-agent")))
        if known is None or given.keys() <= _KEYS:
            return known
        interaction, identified_by = _interaction(given)
        release = known.release  # as the operator set it, else as the agent says: limits and kills by release must not be evaded
        if release == UNRELEASED:
            release = _text(given.get(b"x-holdfast-release")) or release
        prefers = b"prefer" in given or b"x-holdfast-webhook" in given
        return Caller(known.agent, known.name, release, _text(given.get(b"x-holdfast-user")), interaction, identified_by, prefers)

    def _without_key(self, name: str) -> Caller | None:
        agent = self._keyless.get(name) or self._default
        if agent is None:
            return None
        if not name or name in self._keyed:  # the name of an agent with a key is not for the taking
            name = agent.name
        return structs.replace(_unnamed(agent), name=name)

    def _hash(self, key: bytes) -> bytes:
        return blake2b(key, key=self._salt, digest_size=32).digest()


def user_id(text: str) -> str:
    """The end user as the request's body names them; long ones by their hash, for each becomes a row of the ledger."""
    return text if len(text) <= _MAX_ID else blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _is_loopback(peer: str) -> bool:
    return peer == "::1" or peer.startswith(("127.", "::ffff:127."))


def _is_foreign_page(origin: bytes | None) -> bool:
    """Whether a web page of another site asks: a browser lets any page send to loopback, and names the page with every POST."""
    return origin is not None and _LOCAL_PAGE.fullmatch(origin) is None


def _unnamed(agent: AgentOptions) -> Caller:
    """A caller who says nothing but its key."""
    return Caller(agent, agent.name, agent.release, "", "", "")


def presented_key(given: dict[bytes, bytes]) -> bytes:
    """The virtual key, from where the SDKs put theirs."""
    authorization = given.get(b"authorization", b"")
    if authorization[:7].lower() == b"bearer ":
        return authorization[7:].strip()
    return given.get(b"x-api-key") or given.get(b"api-key") or b""


def _interaction(given: dict[bytes, bytes]) -> tuple[str, str]:
    if header := given.get(b"x-holdfast-interaction"):
        return _identifier(header), "header"
    for name in SESSION_HEADERS:
        if session := given.get(name):
            return _identifier(session), "session"
    trace = given.get(b"traceparent", b"").split(b"-")
    if len(trace) == 4 and len(trace[1]) == 32 and trace[1].strip(b"0"):
        return _identifier(trace[1]), "traceparent"
    return "", ""


def _identifier(value: bytes) -> str:
    """The value itself where it is fit to be an id, else its hash: ids end up in file names, URLs and terminals."""
    if len(value) <= _MAX_ID and _ID_BYTES.issuperset(value):
        return value.decode("ascii")
    return blake2b(value, digest_size=16).hexdigest()


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", "replace")[:_MAX_ID] if value else ""


def _first_of_each(headers: Headers) -> dict[bytes, bytes]:
    first: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _READ:
            first.setdefault(name, value)
    return first
