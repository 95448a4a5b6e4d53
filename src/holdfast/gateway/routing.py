"""Where a call may go: the targets of its route that speak its format, in order."""

from fnmatch import fnmatchcase

from msgspec import Struct

from holdfast.gateway.options import AgentOptions, Passthrough, ProviderOptions, Reply, Target
from holdfast.wire.call import Family


class Destination(Struct, frozen=True):
    """A target with its provider looked up. model: as the provider is asked for it."""

    provider: ProviderOptions
    model: str

    @property
    def label(self) -> str:
        return f"{self.provider.name}/{self.model}" if self.model else self.provider.name


class Routing:
    """Knows the providers; routes are the agents'."""

    def __init__(self, providers: tuple[ProviderOptions, ...]) -> None:
        self._by_name = {provider.name: provider for provider in providers}

    def destinations(self, agent: AgentOptions, model: str, family: Family) -> list[Destination | Reply]:
        """The targets for `model`, those left out that speak another family's format; empty when nothing can serve the call."""
        route = agent.routes.get(model) or agent.routes.get("*")
        if route is None:
            provider = self.first(family)
            return [] if provider is None else [Destination(provider, model)]
        return [found for target in route if (found := self._resolve(target, model, family)) is not None]

    def first(self, family: Family) -> ProviderOptions | None:
        """The first configured provider that speaks a family's formats; one that has its key before one that lacks it."""
        speaking = [provider for provider in self._by_name.values() if family in provider.kind.families]
        return next((provider for provider in speaking if not provider.key_error), next(iter(speaking), None))

    def passthrough(self, path: str, family: Family) -> tuple[ProviderOptions, Passthrough] | None:
        """The provider whose configuration lets `path` through unread."""
        for provider in self._by_name.values():
            if family in provider.kind.families:
                for allowed in provider.passthrough:
                    if fnmatchcase(path, allowed.path):
                        return provider, allowed
        return None

    def _resolve(self, target: Target | Reply, model: str, family: Family) -> Destination | Reply | None:
        if isinstance(target, Reply):
            return target
        provider = self._by_name[target.provider]
        if family not in provider.kind.families:
            return None
        return Destination(provider, model if target.model == "*" else target.model)
