"""An api call: one attempt at an external API."""

from msgspec import Raw, Struct

from holdfast.events.decision import CostSource
from holdfast.events.instant import Instant
from holdfast.events.usage import Usage


class ToolUse(Struct, frozen=True, omit_defaults=True):
    """What an MCP server was asked to do. name: of its tool, "" for a message of the protocol's own. arguments: as sent. session: the
    server's id of it. result_bytes: of what it answered, None: nothing. failed: the answer says so."""

    name: str = ""
    arguments: Raw = Raw(b"{}")
    session: str = ""
    result_bytes: int | None = None
    failed: bool = False


class ApiCall(Struct, frozen=True, kw_only=True, tag="api_call", tag_field="kind", omit_defaults=True):
    """One attempt. `payload` holds what was sent beside the messages, system prompt and tools of the decision it served."""

    call_id: str
    timestamp: Instant
    agent: str
    release: str
    run: str = ""
    user_id: str = ""
    interaction: str = ""
    decision_id: str = ""
    target_api: str  # "openai/gpt-5.1 POST /v1/chat/completions"
    payload: Raw = Raw(b"{}")
    response_code: int = 0  # 0: no answer came
    latency_ms: float
    attempt: int  # 1 is the first
    retry_count: int  # attempts before this one
    bytes_sent: int
    bytes_received: int = 0
    usage: Usage | None = None
    cost: int | None = None
    cost_source: CostSource = "free"
    error_id: str = ""
    tool: ToolUse | None = None
