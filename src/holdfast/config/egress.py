"""What a tool of the configuration may take, may be asked twice, and, where it is an MCP server, which of its tools may be called."""

from msgspec import Struct

from holdfast.config.document import Section, Value
from holdfast.config.quantities import count, duration_ns, flag, shown
from holdfast.policy.repeating import IDEMPOTENT, SAFE
from holdfast.policy.retry import RetryOptions
from holdfast.wire.mcp import Named

_MAX_RETRIES = 10
_MAX_PATTERN = 128


class ToolTimeouts(Struct, frozen=True, kw_only=True):
    """In nanoseconds; None: not set. See `holdfast.gateway.options.ToolOptions`."""

    connect_ns: int | None = None
    first_byte_ns: int | None = None
    idle_ns: int | None = None
    total_ns: int | None = None


def read_timeouts(section: Section) -> ToolTimeouts:
    """`timeouts`, and `timeout`, which is its `total` in short."""
    short = section.get("timeout")
    total_ns = None if short is None else short.read(duration_ns)
    within = section.section("timeouts")
    whole = within.get("total")
    if whole is not None and short is not None:
        whole.error("stands beside timeout, which means the same: write one of them")
    found = ToolTimeouts(
        connect_ns=within.read("connect", duration_ns, None),
        first_byte_ns=within.read("first_byte", duration_ns, None),
        idle_ns=within.read("idle", duration_ns, None),
        total_ns=total_ns if whole is None else whole.read(duration_ns),
    )
    within.close()
    return found


def read_retries(section: Section) -> tuple[RetryOptions, frozenset[bytes]]:
    """`retries`: how many, and methods that may be repeated beside those that change nothing."""
    within = section.section("retries")
    options = RetryOptions(max=within.read("max", _max_retries, RetryOptions().max))
    methods = [item.read(_method) for item in within.items("methods")]
    within.close()
    return options, frozenset(method for method in methods if method is not None)


def read_mcp(section: Section) -> Named | None:
    """`mcp`, `allow`, `deny`."""
    is_mcp = section.read("mcp", flag, False)
    allow, deny = section.get("allow"), section.get("deny")
    for value in (allow, deny):
        if value is not None and not is_mcp:
            value.error("lists the tools of an MCP server: write mcp: true beside it")
    blank = section.blank("allow")
    if blank is not None:  # a list whose last item was taken out must not let everything through
        blank.error("lists nothing: write [] to allow no tool, or leave the key out to allow all")
    if not is_mcp:
        return None
    return Named(None if allow is None else _patterns(allow), () if deny is None else _patterns(deny))


def _patterns(value: Value) -> tuple[str, ...]:
    read = [item.read(_pattern) for item in value.items()]
    return tuple(pattern for pattern in read if pattern is not None)


def _pattern(text: str) -> str:
    if not text or len(text) > _MAX_PATTERN or not text.isprintable():
        raise ValueError(f"expected the name of a tool, with * for any part of it, not {shown(text)}")
    return text


def _method(text: str) -> bytes:
    method = text.encode("ascii", "replace")
    if method not in IDEMPOTENT | SAFE:
        able = ", ".join(sorted(each.decode() for each in IDEMPOTENT))
        raise ValueError(f"expected one of {able}, not {shown(text)}: others are repeated only with an Idempotency-Key header")
    return method


def _max_retries(text: str) -> int:
    number = count(text)
    if number > _MAX_RETRIES:
        raise ValueError(f"expected at most {_MAX_RETRIES} retries, not {number}")
    return number
