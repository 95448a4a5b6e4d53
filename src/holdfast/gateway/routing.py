"""Where a call may go: the targets of its route that speak its format, in order."""

from fnmatch import fnmatchcase

from msgspec import Struct

from holdfast.execution.upstream import Headers
from holdfast.gateway.options import AgentOptions, Passthrough, ProviderOptions, Reply, Target
from holdfast.wire.call import Family

_MAX_KNOWN = 4096
"""Routes remembered; model names are the agents', so there may be any number of them, of any length."""
_MAX_NAME = 256


class Destination(Struct, frozen=True):
    """A target with its provider looked up. model: as the provider is asked for it. label: `provider/model`, for people.
    credentials: request headers. prefix: of the path, in place of `/v1`."""

    provider: ProviderOptions
    model: str
    label: str
    credentials: Headers
    prefix: bytes


class Routing:
    """Knows the providers; routes are the agents'."""

    def __init__(self, providers: tuple[ProviderOptions, ...]) -> None:
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
    return Destination(provider, model, label, provider.kind.credentials(provider.key, family), provider.prefix.encode("ascii"))
