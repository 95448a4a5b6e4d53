"""The `providers` section: where a provider is, the key for it, its prices, the paths that are passed through."""

from msgspec import Struct
from msgspec.structs import replace

from holdfast import plugins
from holdfast.config.addresses import Address, address, check_name, header_name
from holdfast.config.breakers import read_breaker
from holdfast.config.document import Problems, Section, Value
from holdfast.config.quantities import count, flag, money, shown
from holdfast.config.rates import read_rates
from holdfast.errors import SecretError, did_you_mean
from holdfast.gateway.endpoints import GENERATING
from holdfast.gateway.options import HostedTool, Passthrough, ProviderOptions
from holdfast.money import Nano
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.policy.rate import Rate
from holdfast.pricing import PriceList, Rates, matches
from holdfast.providers import ProviderKind
from holdfast.secrets import Secrets, parse

DEFAULT_PROVIDERS = ("openai", "anthropic")
_OTHER_HEADERS = frozenset(
    {"authorization", "x-api-key", "api-key", "content-type", "content-encoding", "cookie", "true", "false", "yes", "on"}
)
"""What cannot be a provider's idempotency header: it carries something else, or is no header."""


class Key(Struct, frozen=True):
    """error: why there is none, and the way out. variable: of the environment in which it lies, "" when it lies elsewhere."""

    value: str = ""
    error: str = ""
    variable: str = ""


class Entry(Struct, frozen=True, kw_only=True):
    """What the file says about one provider. where: None when it says nothing."""

    name: str
    kind: ProviderKind
    where: Address | None = None
    key: Key | None = None
    prices: tuple[tuple[str, Rates], ...] = ()
    passthrough: tuple[Passthrough, ...] = ()
    hosted_tools: tuple[tuple[str, HostedTool], ...] = ()
    rates: tuple[Rate, ...] = ()
    formats: tuple[str, ...] = ()
    idempotency_header: str = ""
    breaker: BreakerOptions | None = None


class Providers(Struct, frozen=True):
    """variables: of the environment, in which their keys lie."""

    options: tuple[ProviderOptions, ...]
    variables: frozenset[str]


def read_providers(top: Section, secrets: Secrets, breaker: BreakerOptions | None) -> Providers:
    """The configured providers in their order; `openai` and `anthropic`, where their SDKs' variables say, when the file names none.

    breaker: of those that say nothing of theirs.
    """
    written = top.section("providers").every()
    if written:
        entries = [_entry(name, value, secrets, breaker) for name, value in written]
    else:
        entries = [_default_entry(name, secrets, top.problems, breaker) for name in DEFAULT_PROVIDERS]
    options: list[ProviderOptions] = []
    variables: set[str] = set()
    for entry in entries:
        if entry is not None:
            key = entry.key or _default_key(entry, secrets)
            options.append(_options(entry, key))
            variables.add(key.variable)
    return Providers(tuple(options), frozenset(variables - {""}))


def _default_entry(name: str, secrets: Secrets, problems: Problems, breaker: BreakerOptions | None) -> Entry | None:
    kind: ProviderKind = plugins.load("providers", name)
    environment = secrets.surroundings.environment
    variable = next((variable for variable in kind.base_url_variables if environment.get(variable)), None)
    if variable is None:
        return Entry(name=name, kind=kind, breaker=breaker)
    try:
        where = address(environment[variable])
    except ValueError as error:
        problems.environment_error(variable, str(error))
        return None
    key = _default_key(Entry(name=name, kind=kind), secrets, needed=_is_own(kind, where))
    return Entry(name=name, kind=kind, where=where, key=key, breaker=breaker)


def _entry(name: str, value: Value, secrets: Secrets, default: BreakerOptions | None) -> Entry | None:
    value.check(check_name, name)
    section = value.section()
    kind = _kind(section, name)
    insecure = section.read("insecure", flag, False)
    url = section.get("base_url")
    where = None if url is None else url.read(lambda text: address(text, insecure))
    reference = section.get("api_key")
    key = None if reference is None else _written_key(reference, secrets)
    prices, passthrough = _prices(section.section("prices")), _passthrough(section)
    hosted_tools = _hosted_tools(section.section("hosted_tools"))
    rates = read_rates(section, "provider", name)
    formats = _formats(section, kind)
    idempotency_header = section.read("idempotency_header", _idempotency_header, "")
    breaker = read_breaker(section, "breaker", default)
    section.close()
    if kind is None or (url is not None and where is None):
        return None
    if where is None and kind.base_url is None:
        section.error("needs a base_url, such as http://127.0.0.1:8000/v1")
        return None
    return Entry(
        name=name,
        kind=kind,
        where=where,
        key=key,
        prices=prices,
        passthrough=passthrough,
        hosted_tools=hosted_tools,
        rates=rates,
        formats=formats,
        idempotency_header=idempotency_header,
        breaker=breaker,
    )


def _kind(section: Section, name: str) -> ProviderKind | None:
    known = plugins.names("providers")

    def kind(text: str) -> ProviderKind:
        if text not in known:
            raise ValueError(f"unknown kind {shown(text)}{did_you_mean(text, known)}")
        found: ProviderKind = plugins.load("providers", text)
        return found

    written = section.get("kind")
    if written is not None:
        return written.read(kind)
    if name not in known:
        section.error(f"needs a kind{did_you_mean(name, known)}")
        return None
    return kind(name)


def _formats(section: Section, kind: ProviderKind | None) -> tuple[str, ...]:
    """The wire formats that a provider is spoken to in; others are translated."""
    known = [name for name, found in GENERATING.items() if kind is None or found.family in kind.families]

    def of_kind(text: str) -> str:
        if text not in known:
            raise ValueError(f"no format of this kind of provider: {shown(text)}{did_you_mean(text, known)}")
        return text

    written = section.get("formats")
    if written is None:
        return ()
    values = written.items()
    if written.is_list and not values:
        written.error(f"names no format; leave it out, or name some of: {', '.join(known)}")
    return tuple(found for value in values if (found := value.read(of_kind)) is not None)


def _idempotency_header(text: str) -> str:
    """A header of its own: not one that carries the key, and not the `true` of somebody who took it for a switch."""
    name = header_name(text)
    if name in _OTHER_HEADERS:
        raise ValueError(f"expected the header by which the provider knows a repeated call, such as Idempotency-Key, not {shown(text)}")
    return name


def _options(entry: Entry, key: Key) -> ProviderOptions:
    kind = entry.kind
    where = entry.where or address(kind.base_url or "")
    prefix = where.path
    if "anthropic" in kind.families and not prefix.endswith("/v1"):  # Anthropic's SDKs take the base URL without it and add it
        prefix += "/v1"
    # Behind another host an API may be older than OpenAI's own, whatever the models are called: it is spoken to as `compatible`.
    dialect = (
        plugins.load("providers", "compatible") if kind.base_url and kind.families == ("openai",) and not _is_own(kind, where) else kind
    )
    return ProviderOptions(
        name=entry.name,
        kind=dialect,
        origin=where.origin,
        prefix=prefix,
        key=key.value,
        key_error=key.error,
        prices=_price_list(entry, where),
        passthrough=entry.passthrough,
        hosted_tools=entry.hosted_tools,
        rates=entry.rates,
        formats=entry.formats,
        idempotency_header=entry.idempotency_header,
        breaker=entry.breaker,
    )


def _price_list(entry: Entry, where: Address) -> PriceList:
    known: PriceList = entry.kind.prices_at(where.origin.host)
    return replace(known, overrides=entry.prices + known.overrides)


def _is_own(kind: ProviderKind, where: Address | None) -> bool:
    """Whether calls go to the provider's own host."""
    return kind.base_url is not None and (where is None or where.origin == address(kind.base_url).origin)


def _written_key(reference: Value, secrets: Secrets) -> Key:
    """What is no reference is an error of the file; what cannot be resolved now is one of the calls that need it."""

    def checked(text: str) -> str:
        try:
            parse(text)
        except SecretError as error:
            raise ValueError(str(error)) from None
        return text

    text = reference.read(checked)
    return Key() if text is None else _resolved(text, secrets)


def _default_key(entry: Entry, secrets: Secrets, needed: bool = True) -> Key:
    """The key in a variable that the provider's SDKs read. Never sent to another host that the file names: it was not given for that."""
    if not _is_own(entry.kind, entry.where):
        return Key()
    for variable in entry.kind.key_variables:
        if secrets.surroundings.environment.get(variable):
            return _resolved(f"env:{variable}", secrets)
    if not entry.kind.key_variables or not needed:
        return Key()
    variable = entry.kind.key_variables[0]
    return Key(error=f"set {variable} in Holdfast's environment, or name another secret as providers.{entry.name}.api_key")


def _resolved(reference: str, secrets: Secrets) -> Key:
    source, name = parse(reference)
    variable = name if source == "env" else ""
    try:
        return Key(value=secrets.resolve(reference), variable=variable)
    except SecretError as error:
        return Key(error=str(error), variable=variable)


def _prices(section: Section) -> tuple[tuple[str, Rates], ...]:
    """Model names, with `*` as wildcard, to prices in USD; the first that matches counts."""
    found: list[tuple[str, Rates]] = []
    for pattern, value in section.every():
        _check_reached(value, pattern, [earlier for earlier, _ in found])
        found.append((pattern, _rates(value.section())))
    return tuple(found)


def _check_reached(value: Value, pattern: str, earlier: list[str]) -> None:
    hidden_by = next((other for other in earlier if matches(other, pattern)), None)
    if hidden_by is not None:
        value.error(f'never used: "{hidden_by}" stands before it and matches the same names')


def _hosted_tools(section: Section) -> tuple[tuple[str, HostedTool], ...]:
    """Types of tools, with `*` as wildcard, to the most that one call may cost through such a tool."""
    found: list[tuple[str, HostedTool]] = []
    for pattern, value in section.every():
        _check_reached(value, pattern, [earlier for earlier, _ in found])
        entry = value.section()
        if entry.get("usd") is None:
            entry.error("needs usd, the most that one call may cost through such tools")
        found.append((pattern, HostedTool(usd=entry.read("usd", money, 0), tokens=entry.read("tokens", count, None))))
        entry.close()
    return tuple(found)


def _rates(section: Section) -> Rates:
    def price(key: str) -> Nano | None:
        return section.read(key, money, None)

    read, generated, per_call = price("input_per_million"), price("output_per_million"), price("per_call")
    cached, written = price("cached_input_per_million"), price("cache_write_per_million")
    keys = ("input_per_million", "output_per_million")
    missing = [key for key in keys if section.get(key) is None]
    if len(missing) == 1 or (missing and section.get("per_call") is None):
        section.error(f"needs {' and '.join(missing)}; write 0 for what is free")
    section.close()
    return Rates(
        input=read or 0,
        output=generated or 0,
        cached_input=cached,
        cache_write=written,
        cache_write_short=written,
        per_call=per_call or 0,
    )


def _passthrough(section: Section) -> tuple[Passthrough, ...]:
    found: list[Passthrough] = []
    for value in section.items("passthrough"):
        entry = value.section()
        path = entry.read("path", _path, "")
        if entry.get("path") is None:
            entry.error('needs a path, such as "/v1/files*"')
        found.append(Passthrough(path=path, price=entry.read("price_per_call", money, None)))
        entry.close()
    return tuple(found)


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or any(mark in text for mark in " ?#[]"):
        raise ValueError(f'expected a path such as "/v1/files*", not {shown(text)}')
    return text
