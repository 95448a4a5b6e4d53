"""The sections `jobs` and `webhooks`: what they say arrives, secrets stay secret, mistakes are named with the way out."""

from base64 import b64encode
from pathlib import Path

import pytest

from holdfast.clock import SECOND
from holdfast.config import Config, load
from holdfast.config.jobs import JobsConfig
from holdfast.errors import ConfigError
from holdfast.execution.upstream import Origin
from holdfast.gateway.job_webhook import Webhook
from holdfast.policy.job import JobOptions

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
CRM = "webhooks: {crm: {url: 'https://crm.example.com/hooks', secret: env:HOOK_SECRET}}"


def loaded(folder: Path, text: str, **environment: str) -> Config:
    path = folder / "holdfast.yaml"
    path.write_text(text)
    return load(path, environment)


def test_nothing_needs_to_be_written(tmp_path: Path) -> None:
    assert loaded(tmp_path, "").jobs == JobsConfig()


def test_every_setting_arrives(tmp_path: Path) -> None:
    config = loaded(tmp_path, "jobs: {deadline: 2h, concurrency: 3, max: 5, max_size: 2MB, keep: 7d}")
    assert config.jobs.options == JobOptions(
        deadline_ns=7200 * SECOND, concurrency=3, max=5, max_bytes=2_000_000, keep_ns=7 * 86_400 * SECOND
    )


def test_a_webhook_is_read_with_its_secret_which_nothing_shows(tmp_path: Path) -> None:
    config = loaded(tmp_path, CRM, HOOK_SECRET=SECRET)
    origin = Origin("crm.example.com", 443, True)
    assert config.jobs.webhooks == (Webhook(name="crm", origin=origin, target="/hooks", secret=SECRET),)
    assert SECRET in config.secrets
    assert SECRET not in repr(config)


def test_a_secret_that_is_missing_is_a_warning_and_keeps_nothing_from_starting(tmp_path: Path) -> None:
    config = loaded(tmp_path, CRM)
    (webhook,) = config.jobs.webhooks
    assert (webhook.secret, webhook.error) == ("", "env:HOOK_SECRET: the environment variable HOOK_SECRET is not set")
    assert config.warnings[0].endswith("this webhook is told nothing: env:HOOK_SECRET: the environment variable HOOK_SECRET is not set")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: {concurrency: 0}", 'jobs.concurrency: expected 1 to 1000, not "0"'),
        ("jobs: {deadline: soon}", "jobs.deadline: expected a duration"),
        ("jobs: {deadlin: 1h}", 'jobs.deadlin: unknown key; did you mean "deadline"?'),
        ("webhooks: {crm: {secret: env:HOOK_SECRET}}", "webhooks.crm: needs a url"),
        ("webhooks: {crm: {url: 'https://a.example.com'}}", "webhooks.crm: needs a secret"),
        ("webhooks: {crm: {url: 'https://a.example.com', secret: whsec_abc}}", "webhooks.crm.secret: not a secret reference"),
        ("webhooks: {crm: {url: 'http://a.example.com', secret: env:HOOK_SECRET}}", "webhooks.crm.url: http to a.example.com"),
        ("webhooks: {crm: {url: 'https://a.example.com', secret: env:WEAK}}", "webhooks.crm.secret: the secret env:WEAK must be 24 to 64"),
        ("webhooks: {'a b': {url: 'https://a.example.com', secret: env:HOOK_SECRET}}", "webhooks.a b: a name is made of"),
    ],
)
def test_mistakes_are_named_with_the_way_out(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text, HOOK_SECRET=SECRET, WEAK="hunter2")
    assert said in str(raised.value)
    assert "hunter2" not in str(raised.value)
