"""The configuration: one YAML file and the environment, composed into the options of the parts. Every value has a default.

Errors name file, line, key and the nearest valid key; all that is wrong with a file is said at once.
"""

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from holdfast import plugins
from holdfast.config.agents import read_agents
from holdfast.config.breakers import read_breaker
from holdfast.config.document import Problems, Section, read_document, read_text
from holdfast.config.jobs import JobsConfig, read_jobs
from holdfast.config.later import read_later_sections
from holdfast.config.ledger import LedgerOptions, read_ledger
from holdfast.config.limits import merged, read_limits
from holdfast.config.providers import read_providers
from holdfast.config.quantities import count, money, shown
from holdfast.config.rates import read_rates
from holdfast.config.tools import read_tools
from holdfast.gateway.options import GatewayOptions
from holdfast.policy.circuit_breaker import BreakerOptions
from holdfast.policy.limit import WATCH_ONLY, WINDOWS, Limit, default_marks
from holdfast.providers import ProviderKind
from holdfast.secrets import Secret, Secrets, Surroundings

KNOWN_KEY_VARIABLES = frozenset(
    {
        "AI21_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANYSCALE_API_KEY",
        "AWS_BEARER_TOKEN_BEDROCK",
        "AZURE_AI_API_KEY",
        "AZURE_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "CEREBRAS_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CODEX_API_KEY",
        "COHERE_API_KEY",
        "CO_API_KEY",
        "DASHSCOPE_API_KEY",
        "DEEPINFRA_API_KEY",
        "DEEPSEEK_API_KEY",
        "FIREWORKS_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GENERATIVE_AI_API_KEY",
        "GROQ_API_KEY",
        "HF_TOKEN",
        "HUGGINGFACE_API_KEY",
        "MISTRAL_API_KEY",
        "MOONSHOT_API_KEY",
        "NVIDIA_API_KEY",
        "NVIDIA_NIM_API_KEY",
        "OPENAI_ADMIN_KEY",
        "OPENAI_API_KEY",
        "OPENROUTER_API_KEY",
        "PERPLEXITYAI_API_KEY",
        "PERPLEXITY_API_KEY",
        "PPLX_API_KEY",
        "REPLICATE_API_TOKEN",
        "SAMBANOVA_API_KEY",
        "TOGETHERAI_API_KEY",
        "TOGETHER_API_KEY",
        "VOYAGE_API_KEY",
        "WATSONX_APIKEY",
        "XAI_API_KEY",
        "ZAI_API_KEY",
        "ZHIPUAI_API_KEY",
    }
)
"""Where model providers' SDKs look for keys: with one of these an agent could call a provider past the guard."""


class Config(Struct, frozen=True, kw_only=True):
    """Everything that was configured, as pure data.

    warnings: what is accepted and deserves to be said at the start, each with file and line. secrets: every value that was resolved, for
    redaction. key_variables: of the environment, in which the providers' keys lie.
    """

    gateway: GatewayOptions
    ledger: LedgerOptions = LedgerOptions()
    jobs: JobsConfig = JobsConfig()
    warnings: tuple[str, ...] = ()
    secrets: frozenset[Secret] = frozenset()
    key_variables: frozenset[str] = frozenset()


def load(path: Path | None, environment: Mapping[str, str], text: str | None = None) -> Config:
    """The configuration in the file at `path` (None: defaults throughout) and the environment; raises ConfigError, one error per line.

    text: what the file held when `read_text` read it, where that is to count and not what it holds now.
    """
    problems = Problems(str(path))
    top = Section("", 0, {}, problems) if path is None else read_document(read_text(path) if text is None else text, problems)
    secrets = Secrets(Surroundings(environment=environment, folder=Path() if path is None else path.parent))
    top.read("version", _version, 1)
    breaker = read_breaker(top, "breakers", BreakerOptions())
    providers = read_providers(top, secrets, breaker)
    agents = read_agents(top, providers.options, secrets)
    tools = read_tools(top, secrets, breaker)
    limits = merged([*read_limits(top, ""), *_environment_limits(environment, problems)])
    rates = read_rates(top, "top")
    ledger = read_ledger(top, secrets)
    jobs = read_jobs(top, secrets)
    read_later_sections(top)
    top.close()
    problems.check()
    return Config(
        gateway=GatewayOptions(agents=agents, providers=providers.options, tools=tools, limits=limits, rates=rates),
        ledger=ledger,
        jobs=jobs,
        warnings=(*problems.warnings, *secrets.cautions),
        secrets=frozenset(secrets.values),
        key_variables=providers.variables,
    )


def real_key_variables(config: Config) -> frozenset[str]:
    """The environment variables that may hold a real key of a model provider; `holdfast run` takes them out of the agent's environment."""
    kinds: list[ProviderKind] = [plugins.load("providers", name) for name in plugins.names("providers")]
    return KNOWN_KEY_VARIABLES | config.key_variables | {variable for kind in kinds for variable in kind.key_variables}


def _version(text: str) -> int:
    if text != "1":
        raise ValueError(f"expected 1, the version of the file's format, not {shown(text)}")
    return 1


def _environment_limits(environment: Mapping[str, str], problems: Problems) -> list[Limit]:
    """The deployment checklist's two variables: calls per hour, and a mark on what everything cost in 30 days, for all agents together."""
    limits: list[Limit] = []
    calls, threshold = environment.get("API_CALL_BUDGET_PER_HOUR", "").strip(), environment.get("COST_THRESHOLD_ALERT", "").strip()
    try:
        if calls:
            amount = count(calls)
            marks = default_marks("all", amount)
            limits.append(Limit(scope="all", unit="calls", amount=amount, per_ns=WINDOWS["hour"], marks=marks))
    except ValueError as error:
        problems.environment_error("API_CALL_BUDGET_PER_HOUR", str(error))
    try:
        if threshold:
            mark = money(threshold)
            if not mark:
                raise ValueError("expected an amount of USD above zero")
            limits.append(Limit(scope="all", unit="usd", amount=WATCH_ONLY, per_ns=WINDOWS["month"], marks=(mark,)))
    except ValueError as error:
        problems.environment_error("COST_THRESHOLD_ALERT", str(error))
    return limits
