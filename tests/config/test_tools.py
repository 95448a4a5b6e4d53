"""The `tools` section: what it says arrives, secrets stay secret, mistakes are named with the way out."""

from pathlib import Path

import pytest

from holdfast.clock import SECOND
from holdfast.config import Config, load
from holdfast.errors import ConfigError
from holdfast.execution.upstream import Origin
from holdfast.gateway.options import ToolOptions
from holdfast.policy.limit import Limit
from holdfast.wire.mcp import Named

CRM = (
    "{base_url: https://crm.example.com/api/, headers: {Authorization: 'Bearer env:CRM_TOKEN', X-Team: a b},"
    " timeout: 5s, price_per_call: 0.002}"
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environment: dict[str, str]) -> Config:
    path = Path("holdfast.yaml")
    path.write_text(text)
    return load(path, environment)


def test_a_tool_is_read_with_its_secret_resolved() -> None:
    config = loaded(f"tools: {{crm: {CRM}}}", {"CRM_TOKEN": "crm-secret"})
    assert config.gateway.tools == (
        ToolOptions(
            name="crm",
            origin=Origin("crm.example.com", 443, True),
            prefix="/api",
            headers=(("authorization", "Bearer crm-secret"), ("x-team", "a b")),
            secrets=("crm-secret",),
            price=2_000_000,
            timeout_ns=5 * SECOND,
        ),
    )
    assert config.warnings == () and "crm-secret" in config.secrets
    assert "crm-secret" not in repr(config)


def test_only_the_address_is_needed() -> None:
    (tool,) = loaded("tools: {crm: {base_url: 'http://127.0.0.1:9'}}", {}).gateway.tools
    assert tool == ToolOptions(name="crm", origin=Origin("127.0.0.1", 9, False))


def test_a_secret_that_is_missing_is_a_warning_and_an_error_of_the_calls() -> None:
    config = loaded(f"tools: {{crm: {CRM}}}", {})
    missing = "env:CRM_TOKEN: the environment variable CRM_TOKEN is not set"
    assert config.gateway.tools[0].error == missing
    assert [warning.endswith(f"calls through this tool are refused: {missing}") for warning in config.warnings] == [True]


def test_a_scheme_inside_the_secret_is_told_where_it_belongs() -> None:
    error = loaded(f"tools: {{crm: {CRM}}}", {"CRM_TOKEN": "Bearer crm-secret"}).gateway.tools[0].error
    assert "a scheme such as Bearer stands before the reference" in error and "crm-secret" not in error


def test_a_secret_in_plain_text_is_warned_about_and_kept_secret_all_the_same() -> None:
    config = loaded("tools: {crm: {base_url: 'https://x.example', headers: {X-Api-Token: my-plain-token, X-Team: blue}}}", {})
    assert len(config.warnings) == 1 and "my-plain-token" not in config.warnings[0] and "env:NAME" in config.warnings[0]
    assert config.secrets == {"my-plain-token"} and config.gateway.tools[0].secrets == ("my-plain-token",)


@pytest.mark.parametrize(
    ("tool", "error"),
    [
        ("{}", "tools.crm: needs a base_url, such as https://crm.example.com"),
        ("{base_url: crm}", "tools.crm.base_url: expected a URL such as https://api.example.com/v1"),
        (
            "{base_url: 'http://crm.example.com'}",
            "tools.crm.base_url: http to crm.example.com sends keys and prompts readable over the network; "
            "use https, or set insecure: true",
        ),
        ("{base_url: 'https://x.example', timout: 5s}", 'tools.crm.timout: unknown key; did you mean "timeout"?'),
        (
            "{base_url: 'https://x.example', price_per_call: free}",
            'tools.crm.price_per_call: expected an amount of USD such as 0.50, not "free"',
        ),
        ("{base_url: 'https://x.example', headers: {Host: y}}", "tools.crm.headers.Host: this header is Holdfast's own to set"),
        (
            "{base_url: 'https://x.example', headers: {X-Holdfast-User: y}}",
            "tools.crm.headers.X-Holdfast-User: this header is Holdfast's own to set",
        ),
        ("{base_url: 'https://x.example', headers: {'a b': y}}", 'tools.crm.headers.a b: not the name of a header: "a b"'),
        (
            '{base_url: "https://x.example", headers: {A: "y\\r\\nB: z"}}',
            "tools.crm.headers.A: expected a header's value: printable ASCII without spaces around it",
        ),
        (
            "{base_url: 'https://x.example', headers: {A: y, a: z}}",
            "tools.crm.headers.a: written twice: capitals make no difference in the name of a header",
        ),
    ],
)
def test_a_mistake_is_named(tool: str, error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(f"tools: {{crm: {tool}}}", {})
    assert str(caught.value).splitlines() == [f"holdfast.yaml:1: {error}"]


def test_a_name_that_no_path_can_hold_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="a name is made of letters"):
        loaded("tools: {a/b: {base_url: 'https://x.example'}}", {})


def test_tools_are_counted_apart_by_limits_of_everybody_and_of_an_agent() -> None:
    text = "limits: [{usd: 5, per: day, scope: tool}]\nagents: {a: {limits: [{calls: 2, per: total, scope: tool}]}}"
    gateway = loaded(text, {}).gateway
    assert [(limit.scope, limit.unit, limit.owner) for limit in gateway.limits] == [("tool", "usd", "")]
    assert gateway.agents[0].limits == (Limit(scope="tool", unit="calls", amount=2, owner="a", marks=(1, 2)),)


def options_of(text: str) -> ToolOptions:
    (tool,) = loaded(f"tools: {{t: {{base_url: 'https://t.example.com', {text}}}}}", {}).gateway.tools
    return tool


def test_time_outs_and_retries_are_read() -> None:
    tool = options_of("timeouts: {connect: 1s, first_byte: 2s, idle: 3s, total: 4s}, retries: {max: 5, methods: [PUT, DELETE]}")
    assert (tool.connect_ns, tool.first_byte_ns, tool.idle_ns, tool.timeout_ns) == (SECOND, 2 * SECOND, 3 * SECOND, 4 * SECOND)
    assert (tool.retries.max, tool.repeatable) == (5, {b"PUT", b"DELETE"})


def test_an_mcp_server_is_read_with_its_lists() -> None:
    assert options_of("timeout: 1s").mcp is None and options_of("mcp: false").mcp is None
    assert options_of("mcp: true").mcp == Named()
    assert options_of("mcp: true, allow: [], deny: ['delete_*']").mcp == Named(allow=(), deny=("delete_*",))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("timeout: 1s, timeouts: {total: 2s}", "timeouts.total: stands beside timeout"),
        ("timeouts: {fist_byte: 2s}", "fist_byte"),
        ("retries: {max: 11}", "at most 10 retries"),
        ("retries: {methods: [POST]}", "only with an Idempotency-Key header"),
        ("allow: [x]", "write mcp: true beside it"),
        ("deny: [x]", "write mcp: true beside it"),
        ("mcp: true, allow: ['']", "expected the name of a tool"),
        ("mcp: true, allow: ", "to allow no tool"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        options_of(text)
