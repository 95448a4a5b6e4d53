"""What the agent finds in its environment: the gateway's address and a one-run key in place of the providers' addresses and real keys."""

from collections.abc import Collection, Iterable, Mapping
from urllib.parse import urlsplit

# Read in the packages themselves, November 2026.
BASE_URLS = {
    "OPENAI_BASE_URL": "/v1",  # openai SDKs, Vercel AI SDK, OpenAI Agents, pydantic-ai, LiteLLM, CrewAI
    "OPENAI_API_BASE": "/v1",  # LangChain, LlamaIndex, CrewAI; LiteLLM and through it Aider
    "ANTHROPIC_BASE_URL": "",  # anthropic SDKs, Claude Code, LiteLLM; Vercel AI SDK, which appends /messages and not /v1/messages
    "ANTHROPIC_API_BASE": "",  # LiteLLM and through it Aider; it wins over ANTHROPIC_BASE_URL
    "ANTHROPIC_API_URL": "",  # LangChain; it wins over ANTHROPIC_BASE_URL
}
"""Variables that hold a provider's address, and the path that their readers expect in it."""

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
"""Variables that always hold the one-run key."""

OPTIONAL_PROVIDERS = {
    "OPENROUTER_API_KEY": ("OPENROUTER_API_BASE", "OPENROUTER_BASE_URL"),  # LangChain, LiteLLM; CrewAI
    "GROQ_API_KEY": ("GROQ_API_BASE",),  # LiteLLM
    "MISTRAL_API_KEY": ("MISTRAL_API_BASE",),  # LiteLLM
    "DEEPSEEK_API_KEY": ("DEEPSEEK_API_BASE", "DEEPSEEK_BASE_URL"),  # LiteLLM; CrewAI
    "XAI_API_KEY": ("XAI_API_BASE",),  # LiteLLM
}
"""Other providers of the OpenAI format: key variable to address variables. Set only where the key was: many agents take the first key
that they find as the choice of their model."""

ROUTES_AROUND = (
    "ANTHROPIC_AUTH_TOKEN",  # Claude Code prefers it to the key
    "ANTHROPIC_IDENTITY_TOKEN",  # anthropic SDKs: workload identity
    "ANTHROPIC_IDENTITY_TOKEN_FILE",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_API_BASE_URL",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "ANTHROPIC_AWS_API_KEY",
    "ANTHROPIC_FOUNDRY_API_KEY",
    "AWS_BEARER_TOKEN_BEDROCK",
    "CODEX_API_KEY",
    "CODEX_ACCESS_TOKEN",
    "OPENAI_ADMIN_KEY",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_AD_TOKEN",
    "AZURE_API_KEY",  # LiteLLM, CrewAI
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",  # google-genai prefers it to GEMINI_API_KEY
    "GOOGLE_GENERATIVE_AI_API_KEY",  # Vercel AI SDK
    "COHERE_API_KEY",
    "CO_API_KEY",  # cohere SDK
    "TOGETHER_API_KEY",
    "TOGETHERAI_API_KEY",  # LiteLLM
    "FIREWORKS_API_KEY",
    "PERPLEXITY_API_KEY",
    "CEREBRAS_API_KEY",
    "REPLICATE_API_KEY",
    "REPLICATE_API_TOKEN",
    "AI_GATEWAY_API_KEY",  # Vercel AI Gateway
)
"""Variables with which an agent would reach a model past the gateway; removed whether Holdfast's configuration names them or not."""

SHORTEST_EMBEDDED_SECRET = 8
"""A shorter secret (`none`, `x`: what local models accept) counts only as a whole value: as a part it would be found everywhere."""


def child_environment(
    environment: Mapping[str, str],
    *,
    gateway_url: str,
    key: str,
    real_key_variables: Iterable[str],
    secret_values: Iterable[str],
    run_id: str,
) -> dict[str, str]:
    """The agent's environment, made from this process's own.

    gateway_url: without a path, e.g. `http://127.0.0.1:8788`. key: the one-run key. real_key_variables: by name; secret_values: every
    secret that was resolved. Variables of either, variables of Holdfast itself and other routes to a model are left out.
    Out of its reach: credentials in files (`~/.codex/auth.json`, cloud profiles), and what a program takes from its own settings.
    """
    gateway = gateway_url.rstrip("/")
    hidden = {*real_key_variables, *ROUTES_AROUND, *KEYS, *OPTIONAL_PROVIDERS}
    secrets = {secret for secret in secret_values if secret}
    kept = {
        name: value
        for name, value in environment.items()
        if name not in hidden and not name.startswith("HOLDFAST_") and not _reveals(name, secrets) and not _reveals(value, secrets)
    }
    for key_variable in OPTIONAL_PROVIDERS.keys() & environment.keys():
        kept[key_variable] = key
        kept |= dict.fromkeys(OPTIONAL_PROVIDERS[key_variable], f"{gateway}/v1")
    kept |= {name: gateway + path for name, path in BASE_URLS.items()}
    kept |= dict.fromkeys(KEYS, key)
    kept |= _without_proxy(kept, urlsplit(gateway_url).hostname or "127.0.0.1")
    kept["HOLDFAST_TOOLS_URL"] = f"{gateway}/tools"
    kept["HOLDFAST_RUN"] = run_id
    return kept


def _reveals(text: str, secrets: Collection[str]) -> bool:
    return text in secrets or any(secret in text for secret in secrets if len(secret) >= SHORTEST_EMBEDDED_SECRET)


def _without_proxy(environment: Mapping[str, str], gateway_host: str) -> dict[str, str]:
    """NO_PROXY in both spellings, so that a company's proxy settings do not carry the agent's calls away from the gateway."""
    hosts = dict.fromkeys((gateway_host, "127.0.0.1", "localhost"))
    extended = {}
    for name in ("NO_PROXY", "no_proxy"):
        given = [host.strip() for host in environment.get(name, environment.get(name.swapcase(), "")).split(",") if host.strip()]
        extended[name] = ",".join(given if "*" in given else dict.fromkeys((*given, *hosts)))
    return extended
