"""Where a call may go: the targets of its route, each with the wire format that it is spoken to in, or the API of a tool."""

from fnmatch import fnmatchcase

from msgspec import Struct

from holdfast.execution.upstream import Headers
from holdfast.gateway.endpoints import GENERATING
from holdfast.gateway.options import AgentOptions, Passthrough, ProviderOptions, Reply, Target, ToolOptions
from holdfast.pricing import PriceList
from holdfast.wire.call import Family, WireFormat
from holdfast.wire.quota import Pairs, Quota
from holdfast.wire.translation.between import between

_MAX_KNOWN = 4096
"""Routes remembered; model names are the agents', so there may be any number of them, of any length."""
_MAX_NAME = 256

_COMMON: dict[Family, str] = {"openai": "openai-chat", "anthropic": "anthropic-messages"}
"""The format of each family that all of its providers speak."""


class Destination(Struct, frozen=True):
    """A target with its provider looked up. model: as the provider is asked for it. label: `provider/model`, for people.
    credentials: request headers. prefix: of the path, in place of `/v1`. secrets: what of the credentials must not be seen. tool: whose API
    it is, "" for a model provider's. format: name of its wire format, "" for the caller's own; family: of it."""

    provider: ProviderOptions
    model: str
    label: str
    credentials: Headers
    prefix: bytes
    secrets: tuple[bytes, ...] = ()
    tool: str = ""
    format: str = ""
    family: Family = "openai"

    @property
    def owner(self) -> str:
        """Whose API it is, for people."""
        return f"tool {self.tool}" if self.tool else f"provider {self.provider.name}"


class Routing:
    """Knows the providers and the tools; routes are the agents'.

    tools: by name, where a call of each goes.
    """

    def __init__(self, providers: tuple[ProviderOptions, ...], tools: tuple[ToolOptions, ...] = ()) -> None:
        self.tools = {tool.name: (_destination_of_tool(tool), tool) for tool in tools}
        self._by_name = {provider.name: provider for provider in providers}
        self._known: dict[tuple[str, str, str], tuple[Destination | Reply, ...]] = {}

    def destinations(self, agent: AgentOptions, model: str, spoken: WireFormat) -> tuple[Destination | Reply, ...]:
        """The targets for a call of `model` in the format `spoken`; empty when nothing can serve it.

        Those are left out whose format the call cannot be translated into at all (embeddings, token counts).
        """
        key = (agent.name, model, spoken.name)
        found = self._known.get(key)
        if found is None:
            found = self._find(agent, model, spoken)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            if len(model) <= _MAX_NAME:
                self._known[key] = found
        return found

    def unread(self, family: Family) -> tuple[Destination, ...]:
        """Where a request of a family goes that names no model."""
        provider = self._first(family)
        return () if provider is None else (_destination(provider, "", family),)

    def passthrough(self, path: str, family: Family) -> tuple[Destination, Passthrough] | None:
        """Where the configuration lets `path` through unread."""
        for provider in self._by_name.values():
            if family in provider.kind.families:
                for allowed in provider.passthrough:
                    if fnmatchcase(path, allowed.path):
                        return _destination(provider, "", family), allowed
        return None

    def _find(self, agent: AgentOptions, model: str, spoken: WireFormat) -> tuple[Destination | Reply, ...]:
        route = agent.routes.get(model) or agent.routes.get("*")
        if route is None:
            provider = self._first(spoken.family)
            target = None if provider is None else _spoken_to(provider, model, spoken)
            return () if target is None else (target,)
        return tuple(found for target in route if (found := self._resolve(target, model, spoken)) is not None)

    def _first(self, family: Family) -> ProviderOptions | None:
        """The first configured provider that speaks a family's formats; one that has its key before one that lacks it."""
        speaking = [provider for provider in self._by_name.values() if family in provider.kind.families]
        return next((provider for provider in speaking if not provider.key_error), next(iter(speaking), None))

    def _resolve(self, target: Target | Reply, model: str, spoken: WireFormat) -> Destination | Reply | None:
        if isinstance(target, Reply):
            return target
        return _spoken_to(self._by_name[target.provider], model if target.model == "*" else target.model, spoken)


def _spoken_to(provider: ProviderOptions, model: str, spoken: WireFormat) -> Destination | None:
    """The caller's own format where the provider speaks it, else one that the call can be translated into."""
    restricted = provider.formats if spoken.name in GENERATING else ()
    if spoken.family in provider.kind.families and (not restricted or spoken.name in restricted):
        return _destination(provider, model, spoken.family)
    for name in provider.formats or tuple(_COMMON[family] for family in provider.kind.families):
        if between(spoken.name, name) is not None:
            return _destination(provider, model, GENERATING[name].family, name)
    return None


def _destination(provider: ProviderOptions, model: str, family: Family, translated_to: str = "") -> Destination:
    label = f"{provider.name}/{model}" if model else provider.name
    secrets = (provider.key.encode(),) if provider.key else ()
    return Destination(
        provider,
        model,
        label,
        provider.kind.credentials(provider.key, family),
        provider.prefix.encode("ascii"),
        secrets,
        format=translated_to,
        family=family,
    )


class _ToolKind:
    """Where a tool stands in for a provider: it serves no model, in no format, and says nothing of rates that would hold for all of it."""

    families: tuple[Family, ...] = ()
    key_variables: tuple[str, ...] = ()
    base_url_variables: tuple[str, ...] = ()
    base_url: str | None = None
    prices = PriceList()
    modern = False

    def prices_at(self, host: str) -> PriceList:
        return self.prices

    def credentials(self, key: str, family: Family) -> tuple[tuple[bytes, bytes], ...]:
        return ()

    def quotas(self, headers: Pairs, wall_ns: int) -> tuple[Quota, ...]:
        return ()


def _destination_of_tool(tool: ToolOptions) -> Destination:
    label = f"tool/{tool.name}"
    kind = _ToolKind()
    return Destination(
        ProviderOptions(
            name=label,
            kind=kind,
            origin=tool.origin,
            prefix=tool.prefix,
            key="",
            key_error=tool.error,
            prices=kind.prices,
            breaker=tool.breaker,
        ),
        model="",
        label=label,
        credentials=tuple((name.encode(), value.encode()) for name, value in tool.headers),
        prefix=tool.prefix.encode("ascii"),
        secrets=tuple(secret.encode() for secret in tool.secrets),
        tool=tool.name,
    )
