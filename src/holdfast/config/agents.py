"""The `agents` section: keys, routes, limits, time-outs and retries of each agent."""

from collections.abc import Mapping
from typing import Literal

from holdfast.config.addresses import check_name
from holdfast.config.document import Section, Value
from holdfast.config.fallback import read_fallback, read_hedge, read_retries
from holdfast.config.limits import read_limits
from holdfast.config.loops import read_loop_guard
from holdfast.config.quantities import duration_ns, shown
from holdfast.config.queueing import read_queue
from holdfast.config.rates import read_rates
from holdfast.errors import SecretError, did_you_mean
from holdfast.gateway.options import UNRELEASED, AgentOptions, ProviderOptions, Reply, Target, Timeouts
from holdfast.secrets import Secrets

DEFAULT_AGENT = "default"


def read_agents(top: Section, providers: tuple[ProviderOptions, ...], secrets: Secrets) -> tuple[AgentOptions, ...]:
    """The configured agents; one named `default`, with any key from loopback, when the file names none.

    Not beside others: it would be a way around their limits for whoever leaves the key out.
    """
    by_name = {provider.name: provider for provider in providers}
    agents: list[AgentOptions] = []
    by_key: dict[str, str] = {}
    for name, value in top.section("agents").every():
        value.check(check_name, name)
        agent = _agent(name, value.section(), by_name, secrets)
        twin = by_key.setdefault(agent.key, name) if agent.key else name
        if twin != name:
            value.error(f"has the same key as the agent {twin}; the key is what tells them apart")
        agents.append(agent)
    return tuple(agents) or (AgentOptions(name=DEFAULT_AGENT),)


def _agent(name: str, section: Section, providers: Mapping[str, ProviderOptions], secrets: Secrets) -> AgentOptions:
    for tag in section.items("tags"):
        tag.read(str)
    key = section.get("key")
    timeouts = section.section("timeouts", "{first_token: 20s}")
    agent = AgentOptions(
        name=name,
        key="" if key is None else _virtual_key(key, secrets),
        release=section.read("release", _release, UNRELEASED),
        routes={model: _route(model, value, providers) for model, value in section.section("routes").every()},
        limits=read_limits(section, name),
        rates=read_rates(section, "agent", name),
        queue=read_queue(section, timeouts),
        timeouts=_timeouts(timeouts),
        retries=read_retries(section.section("retries", "{max: 3}")),
        fallback=read_fallback(section.section("fallback", "{continue_streams: true}")),
        hedge_after_ns=read_hedge(section),
        loop_guard=read_loop_guard(section),
        content=section.read("content", _content, "full"),
    )
    section.close()
    return agent


def _release(text: str) -> str:
    if not text or len(text) > 128 or not text.isprintable():
        raise ValueError(f"expected a release's tag, such as v2.3.1, not {shown(text)}")
    return text


def _virtual_key(value: Value, secrets: Secrets) -> str:
    def resolved(text: str) -> str:
        try:
            return secrets.resolve(text)
        except SecretError as error:
            raise ValueError(str(error)) from None

    return value.read(resolved) or ""


def _route(model: str, value: Value, providers: Mapping[str, ProviderOptions]) -> tuple[Target | Reply, ...]:
    if "*" in model and model != "*":
        value.error('a route is for one model name, or "*" for any other; wildcards within a name are not supported')
    targets = [_target(item, providers) for item in value.items()]
    found = tuple(target for target in targets if target is not None)
    if not targets:
        value.error('needs at least one target, such as "openai/*"')
    if any(isinstance(target, Reply) for target in found[:-1]):
        value.error("targets after a reply are never tried")
    _check_keys(value, found, providers)
    return found


def _target(item: Value, providers: Mapping[str, ProviderOptions]) -> Target | Reply | None:
    def target(text: str) -> Target:
        provider, slash, model = text.partition("/")
        if not slash or not model:
            raise ValueError(f"expected provider/model, or provider/* for the model that was asked for, not {shown(text)}")
        if provider not in providers:
            raise ValueError(f"unknown provider {shown(provider)}{did_you_mean(provider, providers)}")
        return Target(provider, model)

    if not item.is_section:
        return item.read(target)
    section = item.section()
    reply = section.read("reply", str, "")
    if not reply:
        section.error("needs the text of a reply")
    section.close()
    return Reply(reply)


def _check_keys(value: Value, route: tuple[Target | Reply, ...], providers: Mapping[str, ProviderOptions]) -> None:
    """A route that no key opens is an error; a single target without its key is a warning, because the others serve."""
    named = [providers[target.provider] for target in route if isinstance(target, Target)]
    closed = {provider.name: provider.key_error for provider in named if provider.key_error}
    for name, why in closed.items():
        if len(closed) == len({provider.name for provider in named}):
            value.error(f"no key for {name}: {why}")
        else:
            value.warn(f"no key for {name}, which is skipped: {why}")


def _timeouts(section: Section) -> Timeouts:
    known = Timeouts()
    found = Timeouts(
        connect_ns=section.read("connect", duration_ns, known.connect_ns),
        first_token_ns=section.read("first_token", duration_ns, known.first_token_ns),
        answer_ns=section.read("answer", duration_ns, known.answer_ns),
        idle_ns=section.read("idle", duration_ns, known.idle_ns),
        total_ns=section.read("total", duration_ns, known.total_ns),
    )
    section.close()
    return found


def _content(text: str) -> Literal["full", "off"]:
    if text == "full":
        return "full"
    if text == "off":
        return "off"
    if text in ("redacted", "hash"):
        raise ValueError(f"content: {text} is not supported by this version; use off, or full")
    raise ValueError(f"expected full or off, not {shown(text)}{did_you_mean(text, ('full', 'off'))}")
