"""What a configuration gets wrong is named with file, line, key and the way out; hostile files end in an error."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import load
from holdfast.config.document import MAX_SIZE
from holdfast.errors import ConfigError

KEYS = {"OPENAI_API_KEY": "sk-real-1", "SUPPORT_AGENT_KEY": "hf-support"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def errors(text: str, environment: dict[str, str] | None = None) -> list[str]:
    path = Path("holdfast.yaml")
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, KEYS if environment is None else environment)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limit: []\n", 'holdfast.yaml:1: limit: unknown key; did you mean "limits"?'),
        (
            "version: 1\nagents:\n  support:\n    limit:\n      - {usd: 1}\n",
            'holdfast.yaml:4: agents.support.limit: unknown key; did you mean "limits"?',
        ),
        ("version: 2\n", 'holdfast.yaml:1: version: expected 1, the version of the file\'s format, not "2"'),
        ("limits: [{usd: 5, pre: day}]\n", 'holdfast.yaml:1: limits[1].pre: unknown key; did you mean "per"?'),
        ("limits:\n - {usd: 5}\n - {usd: 5, per: dya}\n", 'holdfast.yaml:3: limits[2].per: unknown window "dya"; did you mean "day"?'),
        ("limits: [{usd: 5, scope: agnet}]\n", 'holdfast.yaml:1: limits[1].scope: unknown scope "agnet"; did you mean "agent"?'),
        (
            "limits: [{tokens: 5, scope: tool}]\n",
            "holdfast.yaml:1: limits[1]: calls through tools use no tokens; limit calls or usd",
        ),
        (
            "limits: [{usd: 5, scope: user, per: run}]\n",
            "holdfast.yaml:1: limits[1].scope: contradicts per: run, which counts each run in total",
        ),
        ("limits: [{per: day}]\n", "holdfast.yaml:1: limits[1]: a limit needs one of usd, calls and tokens"),
        ("limits: [{usd: 5, calls: 5}]\n", "holdfast.yaml:1: limits[1]: a limit needs one of usd, calls and tokens"),
        ("limits: [{usd: -5}]\n", 'holdfast.yaml:1: limits[1].usd: expected an amount of USD such as 0.50, not "-5"'),
        ("limits: [{usd: .inf}]\n", 'holdfast.yaml:1: limits[1].usd: expected an amount of USD such as 0.50, not ".inf"'),
        ("limits: [{usd: $5}]\n", 'holdfast.yaml:1: limits[1].usd: expected an amount of USD such as 0.50, not "$5"'),
        ("limits: [{calls: 1.5}]\n", 'holdfast.yaml:1: limits[1].calls: expected a whole number, zero or more, not "1.5"'),
        (
            "limits: [{usd: 5, alert_at: 120%}]\n",
            'holdfast.yaml:1: limits[1].alert_at: expected a mark above zero and not above the limit, such as 80%, not "120%"',
        ),
        ("limits: 5\n", "holdfast.yaml:1: limits: expected a list, such as [this, that]"),
        (
            "agents: {a: {hedge: {}}}\n",
            "holdfast.yaml:1: agents.a.hedge: needs after, such as 8s: the silence after which a second attempt is made",
        ),
        ("agents: {a: {hedge: 8s}}\n", "holdfast.yaml:1: agents.a.hedge: expected a section with keys, such as {after: 8s}"),
        ("agents: {a: {retries: 3}}\n", "holdfast.yaml:1: agents.a.retries: expected a section with keys, such as {max: 3}"),
        (
            "providers: {anthropic: {formats: []}}\n",
            "holdfast.yaml:1: providers.anthropic.formats: names no format; leave it out, or name some of: anthropic-messages",
        ),
        (
            "providers: {openai: {idempotency_header: true}}\n",
            "holdfast.yaml:1: providers.openai.idempotency_header: expected the header by which the provider knows a repeated call, "
            'such as Idempotency-Key, not "true"',
        ),
        (
            "providers: {openai: {idempotency_header: Authorization}}\n",
            "holdfast.yaml:1: providers.openai.idempotency_header: expected the header by which the provider knows a repeated call, "
            'such as Idempotency-Key, not "Authorization"',
        ),
        ("rates: [{per: minute}]\n", "holdfast.yaml:1: rates[1]: a rate needs either requests or tokens"),
        ("rates: [{requests: 5}]\n", "holdfast.yaml:1: rates[1]: needs per: second, minute or hour"),
        ("rates: [{requests: 5, per: day}]\n", 'holdfast.yaml:1: rates[1].per: unknown period "day"; known here: hour, minute, second'),
        ("rates: [{requests: 0, per: minute}]\n", "holdfast.yaml:1: rates[1].requests: expected a whole number above zero"),
        ("rates: [{tokens: 5, per: hour, bursts: 2}]\n", 'holdfast.yaml:1: rates[1].bursts: unknown key; did you mean "burst"?'),
        ("rates: [{tokens: 5, per: hour, burst: 0}]\n", "holdfast.yaml:1: rates[1].burst: expected a whole number above zero"),
        (
            "rates: [{tokens: 5, per: hour, on_excess: refused}]\n",
            'holdfast.yaml:1: rates[1].on_excess: expected wait or refuse, not "refused"; did you mean "refuse"?',
        ),
        (
            "rates: [{tokens: 5, per: hour, on_excess: refuse, max_wait: 5s}]\n",
            "holdfast.yaml:1: rates[1].max_wait: a rate that refuses lets nobody wait",
        ),
        ("rates: [{tokens: 5, per: hour, scope: usr}]\n", 'holdfast.yaml:1: rates[1].scope: unknown scope "usr"; did you mean "user"?'),
        (
            "agents:\n  a:\n    rates:\n      - {requests: 5, per: minute, scope: provider}\n",
            'holdfast.yaml:4: agents.a.rates[1].scope: "provider" is nothing that the rates of one agent can count apart; '
            "use one of agent, release, user, run, interaction, model",
        ),
        (
            "rates:\n  - {requests: 5, per: minute}\n  - {requests: 5, per: minute, scope: all}\n",
            "holdfast.yaml:3: rates[2]: written twice: this list counts the same thing at the same rate already",
        ),
        ("limits: [5]\n", "holdfast.yaml:1: limits[1]: expected a section with keys"),
        ("- a\n", "holdfast.yaml:1: expected a section with keys"),
        ("limits: []\nlimits: []\n", "holdfast.yaml:2: limits: written twice, first on line 1"),
        ("{[a]: b}\n", "holdfast.yaml:1: a key must be a single word"),
        ("version: !!python/object:os.system 1\n", "holdfast.yaml:1: version: tags are not supported"),
        ("providers: {openia: {}}\n", 'holdfast.yaml:1: providers.openia: needs a kind; did you mean "openai"?'),
        ("providers: {x: {kind: opnai}}\n", 'holdfast.yaml:1: providers.x.kind: unknown kind "opnai"; did you mean "openai"?'),
        ("providers: {x: {kind: compatible}}\n", "holdfast.yaml:1: providers.x: needs a base_url, such as http://127.0.0.1:8000/v1"),
        ("providers: {simulated: }\n", "holdfast.yaml:1: providers.simulated: needs a base_url, such as http://127.0.0.1:8000/v1"),
        (
            "providers: {'a/b': {kind: openai}}\n",
            'holdfast.yaml:1: providers.a/b: a name is made of letters, digits, dots, dashes and underscores, not "a/b"',
        ),
        (
            "providers: {openai: {api_key: sk-proj-secret}}\n",
            "holdfast.yaml:1: providers.openai.api_key: not a secret reference SOURCE:NAME such as env:OPENAI_API_KEY"
            " (the secret itself never stands here); known here: env, file",
        ),
        (
            "providers: {openai: {base_url: 'http://proxy.example.com/v1'}}\n",
            "holdfast.yaml:1: providers.openai.base_url: http to proxy.example.com sends keys and prompts readable over the network;"
            " use https, or set insecure: true",
        ),
        (
            "providers: {openai: {base_url: ftp://x}}\n",
            "holdfast.yaml:1: providers.openai.base_url: expected a URL such as https://api.example.com/v1",
        ),
        (
            "providers: {openai: {base_url: 'https://me:sk-proj-1@example.com'}}\n",
            "holdfast.yaml:1: providers.openai.base_url: a base URL has no user, no query and no fragment; a key belongs into api_key",
        ),
        (
            "providers: {openai: {prices: {gpt-4o: {input_per_million: 1}}}}\n",
            "holdfast.yaml:1: providers.openai.prices.gpt-4o: needs output_per_million; write 0 for what is free",
        ),
        (
            "providers: {openai: {prices: {'*': {per_call: 1}, gpt-4o: {per_call: 2}}}}\n",
            'holdfast.yaml:1: providers.openai.prices.gpt-4o: never used: "*" stands before it and matches the same names',
        ),
        (
            "providers: {openai: {passthrough: [{path: v1/files}]}}\n",
            'holdfast.yaml:1: providers.openai.passthrough[1].path: expected a path such as "/v1/files*", not "v1/files"',
        ),
        (
            "providers: {openai: {passthrough: [{price_per_call: 0}]}}\n",
            'holdfast.yaml:1: providers.openai.passthrough[1]: needs a path, such as "/v1/files*"',
        ),
        (
            "agents: {a: {routes: {x: [opena/x]}}}\n",
            'holdfast.yaml:1: agents.a.routes.x[1]: unknown provider "opena"; did you mean "openai"?',
        ),
        (
            "agents: {a: {routes: {x: [gpt-4o]}}}\n",
            'holdfast.yaml:1: agents.a.routes.x[1]: expected provider/model, or provider/* for the model that was asked for, not "gpt-4o"',
        ),
        ("agents: {a: {routes: {x: []}}}\n", 'holdfast.yaml:1: agents.a.routes.x: needs at least one target, such as "openai/*"'),
        (
            "agents: {a: {routes: {x: [{reply: hi}, openai/x]}}}\n",
            "holdfast.yaml:1: agents.a.routes.x: targets after a reply are never tried",
        ),
        (
            "agents: {a: {routes: {x: [{replay: hi}]}}}\n",
            'holdfast.yaml:1: agents.a.routes.x[1].replay: unknown key; did you mean "reply"?',
        ),
        ("agents: {a: {routes: {x: [{reply: ''}]}}}\n", "holdfast.yaml:1: agents.a.routes.x[1]: needs the text of a reply"),
        (
            "agents: {a: {routes: {gpt-*: [openai/x]}}}\n",
            'holdfast.yaml:1: agents.a.routes.gpt-*: a route is for one model name, or "*" for any other;'
            " wildcards within a name are not supported",
        ),
        ("agents: {a: {key: env:NOPE}}\n", "holdfast.yaml:1: agents.a.key: env:NOPE: the environment variable NOPE is not set"),
        (
            "agents: {a: {key: env:OPENAI_API_KEY}, b: {key: env:OPENAI_API_KEY}}\n",
            "holdfast.yaml:1: agents.b: has the same key as the agent a; the key is what tells them apart",
        ),
        (
            "agents: {a: {timeouts: {connect: 5}}}\n",
            'holdfast.yaml:1: agents.a.timeouts.connect: expected a duration such as 500ms, 5s, 2m, 1h or 90d, not "5"',
        ),
        ("agents: {a: {timeouts: {conect: 5s}}}\n", 'holdfast.yaml:1: agents.a.timeouts.conect: unknown key; did you mean "connect"?'),
        ("agents: {a: {retries: {max: 1000}}}\n", "holdfast.yaml:1: agents.a.retries.max: expected at most 100 retries, not 1000"),
        (
            "agents: {a: {content: hash}}\n",
            "holdfast.yaml:1: agents.a.content: content: hash is not supported by this version; use off, or full",
        ),
        (
            "agents: {a: {on_unavailable: que}}\n",
            'holdfast.yaml:1: agents.a.on_unavailable: expected queue or refuse, not "que"; did you mean "queue"?',
        ),
        ("agents: {a: [1]}\n", "holdfast.yaml:1: agents.a: expected a section with keys"),
        ("rules: [{metric: errors}]\n", "holdfast.yaml:1: rules[1]: alert rules are not supported by this version"),
        ("channels: {ops: {kind: slack}}\n", "holdfast.yaml:1: channels.ops: alert channels are not supported by this version"),
        (
            "storage: {retention: 90 days}\n",
            'holdfast.yaml:1: storage.retention: expected a duration such as 500ms, 5s, 2m, 1h or 90d, not "90 days"',
        ),
        ("storage: {max_size: 20}\n", 'holdfast.yaml:1: storage.max_size: expected a size such as 500MB or 20GB, not "20"'),
        ("version: 1\nlimits: [\n", "holdfast.yaml:3: not valid YAML: did not find expected node content"),
        ("a: b: c\n", "holdfast.yaml:1: not valid YAML: mapping values are not allowed in this context"),
        ("--- 1\n--- 2\n", "holdfast.yaml:2: not valid YAML: but found another document"),
    ],
)
def test_a_mistake_is_named_with_file_line_key_and_the_way_out(text: str, message: str) -> None:
    assert errors(text)[0] == message


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file() -> None:
    found = errors("limits: [{usd: x}]\nagents:\n  a: {kye: env:X}\nversion: 3\n", {"API_CALL_BUDGET_PER_HOUR": "many"})
    assert [message.split(": ")[0] for message in found] == [
        "holdfast.yaml:1",
        "holdfast.yaml:3",
        "holdfast.yaml:4",
        "API_CALL_BUDGET_PER_HOUR",
    ]


def test_a_file_that_is_not_there_or_not_text_is_named() -> None:
    Path("folder").mkdir()
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    Path("large.yaml").write_text("#" * (MAX_SIZE + 1))
    for name, message in [
        ("missing.yaml", "missing.yaml: cannot be read: No such file or directory"),
        ("folder", "folder: cannot be read: Is a directory"),
        ("binary.yaml", "binary.yaml: not UTF-8 text at byte 0"),
        ("large.yaml", "large.yaml: longer than 4096 KiB"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(Path(name), {})
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "bomb",
    [
        "[" * 20_000,
        "a: " + "{b: " * 5_000,
        "x: &a [" + "1," * 100 + "]\nlimits: [" + "*a, " * 5_000 + "]\n",
        "agents:\n  a0: &a {limits: &l [" + "{usd: 1}, " * 1_000 + "]}\n" + "".join(f"  a{n}: *a\n" for n in range(1, 1_000)),
        "agents: &a\n  x: {routes: *a}\n",
        "%YAML 1." + "9" * 10_000 + "\n---\na: 1\n",
        '"\\UFFFFFFFF": 1\n',
        "limits: [{usd: 1" + "0" * 10_000 + "}]\n",
        "limits: [{usd: 1e999999999}]\n",
    ],
    ids=range(9),
)
def test_a_hostile_file_ends_in_an_error(bomb: str) -> None:
    assert errors(bomb)


WORDS = re.findall(
    r"\S+",
    "version providers openai local kind base_url api_key prices passthrough path limits usd calls per scope alert_at agents a routes *"
    " reply key timeouts connect retries max content tools headers rules channels storage retention",
)

yaml_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(["5s", "80%", "env:X", "openai/*", "day"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(WORDS) | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=30,
)


@given(value=yaml_values)
def test_any_structure_is_read_or_ends_in_a_config_error(value: object) -> None:
    _read_or_config_error(yaml.safe_dump(value, allow_unicode=True))


@given(text=st.text() | st.text(alphabet="{}[]:,-*&!%|>?@`'\"#\n \tab1"))
def test_any_text_is_read_or_ends_in_a_config_error(text: str) -> None:
    _read_or_config_error(text)


def _read_or_config_error(text: str) -> None:
    path = Path("any.yaml")
    path.write_text(text, "utf-8", "surrogatepass")
    try:
        load(path, {})
    except ConfigError as error:
        assert str(error).startswith("any.yaml")


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("API_CALL_BUDGET_PER_HOUR", "-1", 'API_CALL_BUDGET_PER_HOUR: expected a whole number, zero or more, not "-1"'),
        ("COST_THRESHOLD_ALERT", "much", 'COST_THRESHOLD_ALERT: expected an amount of USD such as 0.50, not "much"'),
        ("COST_THRESHOLD_ALERT", "0", "COST_THRESHOLD_ALERT: expected an amount of USD above zero"),
        ("OPENAI_BASE_URL", "nonsense", "OPENAI_BASE_URL: expected a URL such as https://api.example.com/v1"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: value})
    assert str(caught.value) == message
