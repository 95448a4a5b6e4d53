"""Where a call may go: the targets of its route that speak its format, in order, or the API of a tool."""

from fnmatch import fnmatchcase

from msgspec import Struct

from holdfast.execution.upstream import Headers
from holdfast.gateway.options import AgentOptions, Passthrough, ProviderOptions, Reply, Target, ToolOptions
from holdfast.pricing import PriceList
from holdfast.wire.call import Family
from holdfast.wire.quota import Pairs, Quota

_MAX_KNOWN = 4096
"""Routes remembered; model names are the agents', so there may be any number of them, of any length."""
_MAX_NAME = 256


class Destination(Struct, frozen=True):
    """A target with its provider looked up. model: as the provider is asked for it. label: `provider/model`, for people.
    credentials: request headers. prefix: of the path, in place of `/v1`. secrets: what of the credentials must not be seen. tool: whose API
    it is, "" for a model provider's."""

    provider: ProviderOptions
    model: str
    label: str
    credentials: Headers
    prefix: bytes
    secrets: tuple[bytes, ...] = ()
    tool: str = ""

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
        self._known: dict[tuple[str, str, Family], tuple[Destination | Reply, ...]] = {}

    def destinations(self, agent: AgentOptions, model: str, family: Family) -> tuple[Destination | Reply, ...]:
        """The targets for `model`, those left out that speak another family's format; empty when nothing can serve the call."""
        key = (agent.name, model, family)
        found = self._known.get(key)
        if found is None:
            found = self._find(agent, model, family)
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

    def _find(self, agent: AgentOptions, model: str, family: Family) -> tuple[Destination | Reply, ...]:
        route = agent.routes.get(model) or agent.routes.get("*")
        if route is None:
            provider = self._first(family)
            return () if provider is None else (_destination(provider, model, family),)
        return tuple(found for target in route if (found := self._resolve(target, model, family)) is not None)

    def _first(self, family: Family) -> ProviderOptions | None:
        """The first configured provider that speaks a family's formats; one that has its key before one that lacks it."""
        speaking = [provider for provider in self._by_name.values() if family in provider.kind.families]
        return next((provider for provider in speaking if not provider.key_error), next(iter(speaking), None))

    def _resolve(self, target: Target | Reply, model: str, family: Family) -> Destination | Reply | None:
        if isinstance(target, Reply):
            return target
        provider = self._by_name[target.provider]
        if family not in provider.kind.families:
            return None
        return _destination(provider, model if target.model == "*" else target.model, family)


def _destination(provider: ProviderOptions, model: str, family: Family) -> Destination:
    label = f"{provider.name}/{model}" if model else provider.name
    secrets = (provider.key.encode(),) if provider.key else ()
    return Destination(provider, model, label, provider.kind.credentials(provider.key, family), provider.prefix.encode("ascii"), secrets)


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
        ProviderOptions(name=label, kind=kind, origin=tool.origin, prefix=tool.prefix, key="", key_error=tool.error, prices=kind.prices),
        model="",
        label=label,
        credentials=tuple((name.encode(), value.encode()) for name, value in tool.headers),
        prefix=tool.prefix.encode("ascii"),
        secrets=tuple(secret.encode() for secret in tool.secrets),
        tool=tool.name,
    )
