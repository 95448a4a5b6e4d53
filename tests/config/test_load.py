"""The configuration: what the file and the environment say arrives; what they get wrong is named with file, line, key and the way out."""

from pathlib import Path

import pytest

from holdfast.clock import SECOND
from holdfast.config import Config, load, real_key_variables
from holdfast.errors import ConfigError
from holdfast.execution.upstream import Origin
from holdfast.gateway.options import AgentOptions, HostedTool, Passthrough, ProviderOptions, Reply, Target, Timeouts
from holdfast.money import NANO
from holdfast.policy.limit import WATCH_ONLY, WINDOWS, Limit
from holdfast.policy.waiting_line import QueueOptions
from holdfast.pricing import Rates, worst

NOW = 1_795_000_000 * SECOND
KEYS = {"OPENAI_API_KEY": "sk-real-1", "ANTHROPIC_API_KEY": "sk-real-2", "SUPPORT_AGENT_KEY": "hf-support"}
LOCAL = "providers: {local: {kind: compatible, base_url: 'http://127.0.0.1:9/v1'}}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(text: str, environment: dict[str, str] | None = None) -> Config:
    path = Path("holdfast.yaml")
    path.write_text(text)
    return load(path, KEYS if environment is None else environment)


def errors(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environment)
    return str(caught.value).splitlines()


def provider(config: Config, name: str) -> ProviderOptions:
    return next(provider for provider in config.gateway.providers if provider.name == name)


def only_agent(config: Config) -> AgentOptions:
    (agent,) = config.gateway.agents
    return agent


def test_no_file_and_an_empty_file_mean_the_same_defaults() -> None:
    defaults = load(None, KEYS)
    assert defaults == loaded("") == loaded("# nothing\n") == loaded("version: 1\n") == loaded("agents:\nlimits:\nproviders: {}\n")
    assert [provider.name for provider in defaults.gateway.providers] == ["openai", "anthropic"]
    assert defaults.gateway.agents == (AgentOptions(name="default"),)
    assert defaults.gateway.limits == ()
    assert defaults.warnings == ()


def test_the_default_providers_go_to_their_own_hosts_with_their_own_keys() -> None:
    config = load(None, KEYS)
    openai, anthropic = provider(config, "openai"), provider(config, "anthropic")
    assert (openai.origin, openai.prefix, openai.key) == (Origin("api.openai.com", 443, True), "/v1", "sk-real-1")
    assert (anthropic.origin, anthropic.prefix, anthropic.key) == (Origin("api.anthropic.com", 443, True), "/v1", "sk-real-2")
    assert openai.prices.rates("gpt-4o", NOW) is not None


def test_the_contract_of_the_design_is_read_whole() -> None:
    config = load(Path(__file__).parent / "contract.yaml", KEYS)
    assert config.gateway.limits == (
        Limit(scope="all", unit="usd", amount=2000 * NANO, per_ns=WINDOWS["day"], marks=(1000 * NANO, 1600 * NANO, 2000 * NANO)),
    )
    assert only_agent(config) == AgentOptions(
        name="support",
        key="hf-support",
        routes={
            "gpt-5.1": (Target("openai", "gpt-5.1"), Target("anthropic", "claude-sonnet-4-5"), Reply("We will answer by e-mail.")),
            "*": (Target("openai", "*"),),
        },
        limits=(
            Limit(scope="agent", unit="calls", amount=1000, per_ns=WINDOWS["hour"], owner="support", marks=(500, 800, 1000)),
            Limit(scope="agent", unit="usd", amount=500 * NANO, per_ns=WINDOWS["day"], owner="support", marks=(400 * NANO,)),
            Limit(scope="interaction", unit="usd", amount=NANO // 2, per_ns=None, owner="support"),
            Limit(
                scope="user",
                unit="usd",
                amount=5 * NANO,
                per_ns=WINDOWS["hour"],
                owner="support",
                marks=(5 * NANO // 2, 4 * NANO, 5 * NANO),
            ),
        ),
        timeouts=Timeouts(connect_ns=5 * SECOND, first_token_ns=20 * SECOND, idle_ns=30 * SECOND, total_ns=120 * SECOND),
        retries=type(only_agent(config).retries)(max=3),
        queue=QueueOptions(waits=True),
    )
    local = provider(config, "local")
    assert (local.origin, local.prefix, local.key, local.key_error) == (Origin("127.0.0.1", 11434, False), "/v1", "", "")
    assert local.prices.rates("gpt-4o", NOW) == Rates(input=0, output=0)
    assert provider(config, "anthropic").key_error.startswith(
        "aws-secretsmanager:prod/agent/anthropic-key: the source aws-secretsmanager is not"
    )


def test_what_the_contract_asks_for_and_this_version_lacks_is_said() -> None:
    config = load(Path(__file__).parent / "contract.yaml", KEYS)
    said = [warning.split("contract.yaml:")[1].split(":")[:2] for warning in config.warnings]
    assert said == [
        ["7", " tools.crm.headers.Authorization"],
        ["15", " agents.support.routes.gpt-5.1"],
        ["28", " storage"],
    ]


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert loaded("\ufeffversion: 1\n") == loaded("")


def test_an_alias_is_read_where_it_is_used() -> None:
    config = loaded("agents:\n  a: {limits: &l [{usd: 1}], key: env:OPENAI_API_KEY}\n  b: {limits: *l}\n")
    assert [agent.limits[0].owner for agent in config.gateway.agents] == ["a", "b"]


def test_money_is_exact() -> None:
    (limit,) = loaded("limits: [{usd: 0.1}]").gateway.limits
    assert limit.amount == 100_000_000


@pytest.mark.parametrize(
    ("written", "scope", "per_ns"),
    [
        ("per: minute", "all", 60 * SECOND),
        ("per: month", "all", 30 * 86_400 * SECOND),
        ("per: total", "all", None),
        ("scope: all", "all", None),
        ("per: run", "run", None),
        ("per: interaction", "interaction", None),
        ("per: user", "user", None),
        ("per: hour, scope: agent", "agent", 3600 * SECOND),
        ("per: run, scope: run", "run", None),
    ],
)
def test_what_a_limit_counts_and_over_which_window(written: str, scope: str, per_ns: int | None) -> None:
    (limit,) = loaded(f"limits: [{{calls: 5, {written}}}]").gateway.limits
    assert (limit.scope, limit.per_ns, limit.owner) == (scope, per_ns, "")


@pytest.mark.parametrize(
    ("written", "marks"),
    [
        ("{usd: 10, alert_at: 80%}", (8 * NANO,)),
        ("{usd: 10, alert_at: 4.5}", (9 * NANO // 2,)),
        ("{usd: 10, alert_at: [50%, 90%]}", (5 * NANO, 9 * NANO)),
        ("{calls: 3, alert_at: 50%}", (2,)),
        ("{calls: 3, alert_at: 3}", (3,)),
        ("{calls: 3, alert_at: []}", ()),
        ("{calls: 10}", (5, 8, 10)),
        ("{calls: 1}", (1,)),
        ("{calls: 0}", ()),
        ("{calls: 10, per: interaction}", ()),
    ],
)
def test_marks_are_shares_or_amounts(written: str, marks: tuple[int, ...]) -> None:
    (limit,) = loaded(f"limits: [{written}]").gateway.limits
    assert limit.marks == marks


@pytest.mark.parametrize(
    "written", ["{usd: 10, alert_at: 80%}, {usd: 5, alert_at: 80%}", "{usd: 5, alert_at: 80%}, {usd: 10, alert_at: 80%}"]
)
def test_limits_that_count_the_same_become_the_smallest_with_every_mark(written: str) -> None:
    (limit,) = loaded(f"limits: [{written}]").gateway.limits
    assert (limit.amount, limit.marks) == (5 * NANO, (4 * NANO, 8 * NANO))


def test_the_checklists_variables_limit_calls_and_watch_costs() -> None:
    limits = load(None, {"API_CALL_BUDGET_PER_HOUR": "1000", "COST_THRESHOLD_ALERT": "500"}).gateway.limits
    assert limits == (
        Limit(scope="all", unit="calls", amount=1000, per_ns=WINDOWS["hour"], marks=(500, 800, 1000)),
        Limit(scope="all", unit="usd", amount=WATCH_ONLY, per_ns=WINDOWS["month"], marks=(500 * NANO,)),
    )
    assert [limit.binding for limit in limits] == [True, False]


def test_empty_variables_are_as_good_as_none() -> None:
    assert load(None, {"API_CALL_BUDGET_PER_HOUR": "", "COST_THRESHOLD_ALERT": " ", "OPENAI_BASE_URL": ""}).gateway.limits == ()


def test_the_sdks_variables_point_the_default_providers_elsewhere() -> None:
    config = load(None, KEYS | {"OPENAI_BASE_URL": "https://proxy.example.com/openai/v1/", "ANTHROPIC_BASE_URL": "http://[::1]:9000"})
    openai, anthropic = provider(config, "openai"), provider(config, "anthropic")
    assert (openai.origin, openai.prefix, openai.key) == (Origin("proxy.example.com", 443, True), "/openai/v1", "sk-real-1")
    assert (anthropic.origin, anthropic.prefix, anthropic.key) == (Origin("::1", 9000, False), "/v1", "sk-real-2")
    assert provider(loaded("providers: {openai: {}}", {"OPENAI_BASE_URL": "http://127.0.0.1:1"}), "openai").origin.host == "api.openai.com"


@pytest.mark.parametrize(
    ("url", "prefix"), [("https://x.example", "/v1"), ("https://x.example/v1/", "/v1"), ("https://x.example/a", "/a/v1")]
)
def test_anthropics_base_url_is_taken_with_or_without_its_version(url: str, prefix: str) -> None:
    assert provider(loaded(f"providers: {{anthropic: {{base_url: '{url}'}}}}"), "anthropic").prefix == prefix


def test_the_path_of_any_other_base_url_is_taken_as_it_is() -> None:
    assert provider(loaded("providers: {x: {kind: compatible, base_url: 'https://x.example/api/'}}"), "x").prefix == "/api"


def test_http_to_another_machine_is_allowed_where_the_file_says_so() -> None:
    written = "providers: {x: {kind: compatible, base_url: 'http://models.lan:8000', insecure: true}}"
    assert provider(loaded(written), "x").origin == Origin("models.lan", 8000, False)


def test_openai_at_another_host_is_spoken_to_as_compatible_and_priced_by_name() -> None:
    own, foreign = (
        provider(loaded(f"providers: {{openai: {written}}}"), "openai") for written in ("{}", "{base_url: 'https://x.example/v1'}")
    )
    assert (own.kind.modern, foreign.kind.modern) == (True, False)
    assert foreign.prices.rates("nobody-knows", NOW) is own.prices.rates("nobody-knows", NOW) is None
    assert worst(foreign.prices.rates("gpt-4o", NOW), 1000, 1000) == worst(own.prices.rates("gpt-4o", NOW), 1000, 1000)


def test_a_key_from_the_environment_is_not_sent_to_a_host_that_only_the_file_names() -> None:
    foreign = provider(loaded("providers: {openai: {base_url: 'https://x.example/v1'}}"), "openai")
    named = provider(loaded("providers: {openai: {base_url: 'https://x.example/v1', api_key: env:OPENAI_API_KEY}}"), "openai")
    assert (foreign.key, foreign.key_error) == ("", "")
    assert named.key == "sk-real-1"


def test_a_missing_key_is_no_error_until_it_is_needed() -> None:
    config = load(None, {})
    assert provider(config, "openai").key_error == (
        "set OPENAI_API_KEY in Holdfast's environment, or name another secret as providers.openai.api_key"
    )
    assert provider(loaded("providers: {x: {kind: openai, api_key: env:MISSING}}"), "x").key_error == (
        "env:MISSING: the environment variable MISSING is not set"
    )
    assert provider(load(None, {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}), "openai").key_error == ""


def test_a_route_that_no_key_opens_is_an_error_and_a_closed_fallback_a_warning() -> None:
    route = "agents: {a: {routes: {x: [openai/x]}}}"
    assert errors(route, {})[0].startswith("holdfast.yaml:1: agents.a.routes.x: no key for openai: set OPENAI_API_KEY")
    both = LOCAL.replace("{local:", "{openai: {}, local:") + "agents: {a: {routes: {x: [openai/x, local/x]}}}"
    assert [warning.split(": ", 2)[2].split(":")[0] for warning in loaded(both, {}).warnings] == ["no key for openai, which is skipped"]


def test_an_oauth_token_of_anthropic_stands_in_for_a_key() -> None:
    assert provider(load(None, {"ANTHROPIC_AUTH_TOKEN": "sk-ant-oat01-x"}), "anthropic").key == "sk-ant-oat01-x"


def test_prices_and_passthrough_of_a_provider() -> None:
    config = loaded(
        "providers:\n"
        "  openai:\n"
        "    prices:\n"
        "      my-model: {input_per_million: 2, output_per_million: 8, cached_input_per_million: 0.5, cache_write_per_million: 3}\n"
        "      image-*: {per_call: 0.04}\n"
        "    passthrough: [{path: '/v1/files*', price_per_call: 0}, {path: /v1/batches}]\n"
    )
    openai = provider(config, "openai")
    assert openai.prices.rates("my-model", NOW) == Rates(
        input=2 * NANO, output=8 * NANO, cached_input=NANO // 2, cache_write=3 * NANO, cache_write_short=3 * NANO
    )
    assert openai.prices.rates("image-1", NOW) == Rates(input=0, output=0, per_call=NANO // 25)
    assert openai.prices.rates("gpt-4o", NOW) is not None
    assert openai.passthrough == (Passthrough(path="/v1/files*", price=0), Passthrough(path="/v1/batches", price=None))


def test_the_simulated_provider_needs_no_key_and_no_price() -> None:
    simulated = provider(loaded("providers: {sim: {kind: simulated, base_url: 'http://127.0.0.1:8099'}}"), "sim")
    assert (simulated.prefix, simulated.key_error) == ("/v1", "")
    assert simulated.prices.rates("sim-ok", NOW) == Rates(input=NANO, output=4 * NANO)


def test_prices_of_the_file_go_before_those_that_a_provider_brings() -> None:
    written = "providers: {sim: {kind: simulated, base_url: 'http://127.0.0.1:8099', prices: {sim-ok: {per_call: 1}}}}"
    prices = provider(loaded(written), "sim").prices
    assert prices.rates("sim-ok", NOW) == Rates(input=0, output=0, per_call=NANO)
    assert prices.rates("sim-slow-5", NOW) == Rates(input=NANO, output=4 * NANO)


def test_named_agents_stand_alone_so_that_leaving_out_the_key_is_no_way_around_them() -> None:
    assert [agent.name for agent in loaded("agents: {support: {key: env:SUPPORT_AGENT_KEY}}").gateway.agents] == ["support"]


def test_no_secret_is_shown_by_the_configuration() -> None:
    config = load(Path(__file__).parent / "contract.yaml", KEYS)
    assert not any(value in repr(config) for value in KEYS.values())
    assert config.secrets == {"sk-real-1", "hf-support"}


def test_every_variable_that_holds_a_real_key_is_known() -> None:
    variables = real_key_variables(loaded("providers: {x: {kind: openai, api_key: env:TEAM_KEY}}", {"TEAM_KEY": "k"}))
    assert variables >= {
        "TEAM_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "AZURE_OPENAI_API_KEY",
        "GEMINI_API_KEY",
    }
    assert "SUPPORT_AGENT_KEY" not in real_key_variables(load(Path(__file__).parent / "contract.yaml", KEYS))


def test_a_limit_may_count_tokens() -> None:
    (limit,) = loaded("limits: [{tokens: 1000000, per: day, scope: user, alert_at: [50%, 900000]}]").gateway.limits
    assert limit == Limit(scope="user", unit="tokens", amount=10**6, per_ns=WINDOWS["day"], marks=(500_000, 900_000))


def test_tools_that_a_provider_runs_have_a_worst_price() -> None:
    written = "{kind: openai, hosted_tools: {'web_search*': {usd: 0.30, tokens: 200000}, mcp: {usd: 1}}}"
    found = provider(loaded(f"providers: {{x: {written}}}"), "x")
    assert found.hosted_tool("web_search_preview") == HostedTool(usd=3 * NANO // 10, tokens=200_000)
    assert found.hosted_tool("mcp") == HostedTool(usd=NANO)
    assert found.hosted_tool("code_interpreter") is None


@pytest.mark.parametrize(
    ("tools", "error"),
    [
        (
            "{mcp: {tokens: 5}}",
            "holdfast.yaml:1: providers.x.hosted_tools.mcp: needs usd, the most that one call may cost through such tools",
        ),
        ("{mcp: {usd: -1}}", 'holdfast.yaml:1: providers.x.hosted_tools.mcp.usd: expected an amount of USD such as 0.50, not "-1"'),
        (
            "{'*': {usd: 1}, mcp: {usd: 2}}",
            'holdfast.yaml:1: providers.x.hosted_tools.mcp: never used: "*" stands before it and matches the same names',
        ),
        ("{mcp: {usd: 1, token: 2}}", 'holdfast.yaml:1: providers.x.hosted_tools.mcp.token: unknown key; did you mean "tokens"?'),
    ],
)
def test_a_mistake_about_such_tools_is_named(tools: str, error: str) -> None:
    assert errors(f"providers: {{x: {{kind: openai, hosted_tools: {tools}}}}}") == [error]


@pytest.mark.parametrize(("host", "tenths"), [("api.openai.com", 10), ("eu.api.openai.com", 11), ("api.openai.com.evil.example", 10)])
def test_data_residency_costs_a_tenth_more(host: str, tenths: int) -> None:
    rates = provider(loaded(f"providers: {{openai: {{base_url: 'https://{host}/v1'}}}}"), "openai").prices.rates("gpt-5.1", NOW, "default")
    assert rates is not None
    assert worst(rates, 1_000_000, 0) == NANO * 125 // 100 * tenths // 10
