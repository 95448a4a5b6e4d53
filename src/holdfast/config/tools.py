"""The `tools` section: APIs that agents call through `/tools/NAME`, the headers that open them, what a call costs and may take."""

import re

from msgspec import Struct

from holdfast.config.addresses import address, check_name, header_name
from holdfast.config.breakers import read_breaker
from holdfast.config.document import Section, Value
from holdfast.config.egress import read_mcp, read_retries, read_timeouts
from holdfast.config.quantities import flag, money
from holdfast.errors import SecretError
from holdfast.gateway.options import ToolOptions
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.secrets import Secret, Secrets, parse

_SECRET_NAME = re.compile("authorization|cookie|key|token|secret|password")


class _Header(Struct, frozen=True):
    """secret: the part of the value that nobody may see. error: why it is not known."""

    value: str = ""
    secret: str = ""
    error: str = ""


def read_tools(top: Section, secrets: Secrets, breaker: BreakerOptions | None) -> tuple[ToolOptions, ...]:
    """The configured tools. A secret that cannot be resolved now is a warning here, and an error of the calls that need it.

    breaker: of those that say nothing of theirs.
    """
    found = [_tool(name, value, secrets, breaker) for name, value in top.section("tools").every()]
    return tuple(tool for tool in found if tool is not None)


def _tool(name: str, value: Value, secrets: Secrets, default: BreakerOptions | None) -> ToolOptions | None:
    value.check(check_name, name)
    section = value.section()
    insecure = section.read("insecure", flag, False)
    url = section.get("base_url")
    where = None if url is None else url.read(lambda text: address(text, insecure))
    headers = _headers(section.section("headers"), secrets)
    breaker = read_breaker(section, "breaker", default)
    timeouts, price = read_timeouts(section), section.read("price_per_call", money, None)
    (retries, repeatable), mcp = read_retries(section), read_mcp(section)
    section.close()
    if url is None:
        section.error("needs a base_url, such as https://crm.example.com")
    if where is None:
        return None
    return ToolOptions(
        name=name,
        origin=where.origin,
        prefix=where.path,
        headers=tuple((header, read.value) for header, read in headers.items()),
        secrets=tuple(read.secret for read in headers.values() if read.secret),
        error=next((read.error for read in headers.values() if read.error), ""),
        price=price,
        breaker=breaker,
        timeout_ns=timeouts.total_ns,
        connect_ns=timeouts.connect_ns,
        first_byte_ns=timeouts.first_byte_ns,
        idle_ns=timeouts.idle_ns,
        retries=retries,
        repeatable=repeatable,
        mcp=mcp,
    )


def _headers(section: Section, secrets: Secrets) -> dict[str, _Header]:
    """Header names in lower case."""
    found: dict[str, _Header] = {}
    for name, value in section.every():
        value.check(header_name, name)
        if name.lower() in found:
            value.error("written twice: capitals make no difference in the name of a header")
        text = value.read(_check_header_value)
        if text is not None:
            found[name.lower()] = _header(name.lower(), text, value, secrets)
    return found


def _header(name: str, text: str, value: Value, secrets: Secrets) -> _Header:
    """`SOURCE:NAME`, the same with a scheme before it (`Bearer env:TOKEN`), or plain text."""
    reference = text.split(" ")[-1]
    try:
        parse(reference)
    except SecretError:
        if not _SECRET_NAME.search(name):
            return _Header(text)
        value.warn("a plain value, for everybody to see who sees the file; write a secret as a reference, such as env:NAME")
        secret = Secret(text)
        secrets.values.add(secret)
        return _Header(secret, secret)
    try:
        secret = secrets.resolve(reference)
    except SecretError as error:
        why = (
            f"{error} (a scheme such as Bearer stands before the reference, not in the secret)"
            if "characters" in str(error)
            else str(error)
        )
        value.warn(f"calls through this tool are refused: {why}")
        return _Header(error=why)
    return _Header(Secret(text.removesuffix(reference) + secret.reveal()), secret)


def _check_header_value(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("expected a header's value: printable ASCII without spaces around it")
    return text
