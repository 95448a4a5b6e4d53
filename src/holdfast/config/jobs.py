"""The sections `jobs` and `webhooks`: what may be answered later, how much of it is kept, and who may be told of it."""

from msgspec import Struct

from holdfast.config.addresses import address, check_name
from holdfast.config.document import Section, Value
from holdfast.config.quantities import count, duration_ns, flag, shown, size_bytes
from holdfast.errors import SecretError
from holdfast.gateway.job_webhook import Webhook
from holdfast.policy.job import JobOptions
from holdfast.policy.webhook import signing_key
from holdfast.secrets import Secrets, parse

_MOST_AT_ONCE = 1000


class JobsConfig(Struct, frozen=True, kw_only=True):
    """What the two sections say."""

    options: JobOptions = JobOptions()
    webhooks: tuple[Webhook, ...] = ()


def read_jobs(top: Section, secrets: Secrets) -> JobsConfig:
    """`jobs: {deadline: 1h, concurrency: 8, max: 10000, max_size: 1GiB, keep: 24h}`, `webhooks: {NAME: {url: …, secret: env:SECRET}}`."""
    section, known = top.section("jobs", "{deadline: 1h}"), JobOptions()
    options = JobOptions(
        deadline_ns=section.read("deadline", duration_ns, known.deadline_ns),
        concurrency=section.read("concurrency", _concurrency, known.concurrency),
        max=section.read("max", count, known.max),
        max_bytes=section.read("max_size", size_bytes, known.max_bytes),
        keep_ns=section.read("keep", duration_ns, known.keep_ns),
    )
    section.close()
    webhooks = [_webhook(name, value, secrets) for name, value in top.section("webhooks").every()]
    return JobsConfig(options=options, webhooks=tuple(webhook for webhook in webhooks if webhook is not None))


def _concurrency(text: str) -> int:
    number = count(text)
    if not 1 <= number <= _MOST_AT_ONCE:
        raise ValueError(f"expected 1 to {_MOST_AT_ONCE}, not {shown(text)}")
    return number


def _webhook(name: str, value: Value, secrets: Secrets) -> Webhook | None:
    value.check(check_name, name)
    section = value.section()
    insecure = section.read("insecure", flag, False)
    url, secret = section.get("url"), section.get("secret")
    where = None if url is None else url.read(lambda text: address(text, insecure))
    key, error = ("", "") if secret is None else _key(secret, secrets)
    section.close()
    if url is None:
        section.error("needs a url, such as https://example.com/hooks/holdfast")
    if secret is None:
        section.error("needs a secret, such as env:HOOK_SECRET, with which what is sent is signed")
    if where is None:
        return None
    return Webhook(name=name, origin=where.origin, target=where.path or "/", secret=key, error=error)


def _reference(text: str) -> str:
    try:
        parse(text)
    except SecretError as error:
        raise ValueError(str(error)) from None
    return text


def _key(value: Value, secrets: Secrets) -> tuple[str, str]:
    """The key, or why there is none: a receiver that cannot be told now must not keep the gateway from starting."""
    reference = value.read(_reference)
    if reference is None:
        return "", ""
    try:
        secret = secrets.resolve(reference)
    except SecretError as error:
        value.warn(f"this webhook is told nothing: {error}")
        return "", str(error)
    try:
        signing_key(secret.reveal())
    except ValueError as error:
        value.error(f"the secret {reference} {error}")
    return secret, ""
