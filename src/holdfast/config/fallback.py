"""When another target takes over from one that is too slow or declines, and how often it is tried again: parts of an agent's section."""

from msgspec.structs import replace

from holdfast.config.document import Section
from holdfast.config.quantities import count, duration_ns, flag, shown
from holdfast.gateway.options import FallbackOptions
from holdfast.policy.retry import RetryOptions

MAX_RETRIES = 100
_FASTEST = 10_000
"""Tokens per second beyond which no model streams."""


def read_fallback(section: Section) -> FallbackOptions:
    """The key `fallback`."""
    found = FallbackOptions(
        content_filter=section.read("content_filter", flag, False),
        continue_streams=section.read("continue_streams", flag, False),
        min_tokens_per_s=section.read("min_tokens_per_second", _rate, 0.0),
    )
    if found.min_tokens_per_s and not found.continue_streams:
        section.error("min_tokens_per_second needs continue_streams: true, for what has begun can only be continued")
    section.close()
    return found


def read_hedge(agent: Section) -> int | None:
    """The key `hedge`: the silence, in nanoseconds, after which a second attempt is made; None where nothing is said."""
    if agent.get("hedge") is None:
        return None
    section = agent.section("hedge", "{after: 8s}")
    after_ns = section.read("after", duration_ns, None)
    if section.get("after") is None:
        section.error("needs after, such as 8s: the silence after which a second attempt is made")
    elif after_ns == 0:
        section.error("expected some time, such as 2s: every call would be made twice")
    section.close()
    return after_ns


def read_retries(section: Section) -> RetryOptions:
    """The key `retries`."""
    known = RetryOptions()
    options = replace(known, max=section.read("max", _max_retries, known.max), share=section.read("share", _percent, known.share))
    section.close()
    return options


def _max_retries(text: str) -> int:
    number = count(text)
    if number > MAX_RETRIES:
        raise ValueError(f"expected at most {MAX_RETRIES} retries, not {number}")
    return number


def _percent(text: str) -> int:
    number = text.removesuffix("%")
    if not number.isdecimal() or not text.endswith("%") or int(number) > 1000:
        raise ValueError(f"expected a percentage of the calls, such as 20%, not {shown(text)}")
    return int(number)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1
    if not 0 <= rate <= _FASTEST:
        raise ValueError(f"expected tokens per second, such as 5, not {shown(text)}")
    return rate
