"""The keys `breakers` of the top and `breaker` of a provider or tool: `{failure_rate: 50%, window: 30s, minimum_calls: 10}`, or `off`."""

import re

from msgspec.structs import replace

from holdfast.config.document import Section
from holdfast.config.quantities import count, duration_ns, shown
from holdfast.errors import did_you_mean
from holdfast.policy.circuit_breaker import MOST_PROBES, BreakerOptions

_LONGEST_WINDOW_NS = 86_400 * 1_000_000_000
_MOST_CALLS = 1_000_000


def read_breaker(section: Section, key: str, default: BreakerOptions | None) -> BreakerOptions | None:
    """What the key says; what it does not say is as in `default`. None: switched off."""
    value = section.get(key)
    if value is None:
        return default
    if not value.is_section:
        return None if value.read(_off) else default
    written = value.section()
    known = default or BreakerOptions()
    slow = written.get("slow_call")
    found = replace(
        known,
        failure_rate=written.read("failure_rate", percent, known.failure_rate),
        slow_call_ns=known.slow_call_ns if slow is None else slow.read(_slow_call),
        slow_rate=written.read("slow_rate", percent, known.slow_rate),
        window_ns=written.read("window", _window, known.window_ns),
        minimum_calls=written.read("minimum_calls", _calls, known.minimum_calls),
        cooldown_ns=written.read("cooldown", duration_ns, known.cooldown_ns),
        longest_cooldown_ns=written.read("longest_cooldown", duration_ns, known.longest_cooldown_ns),
        probes=written.read("probes", _probes, known.probes),
    )
    written.close()
    if written.get("slow_rate") is not None and found.slow_call_ns is None:
        written.error("slow_rate needs slow_call, from when a call is slow")
    if found.longest_cooldown_ns < found.cooldown_ns:
        if written.get("longest_cooldown") is not None:
            written.error("longest_cooldown is shorter than cooldown")
        found = replace(found, longest_cooldown_ns=found.cooldown_ns)
    return found


def percent(text: str) -> int:
    """`50%`, a whole number from 1 to 100."""
    found = re.fullmatch(r"([0-9]{1,3}) ?%", text)
    if not found or not 1 <= int(found[1]) <= 100:
        raise ValueError(f"expected a share of the calls from 1% to 100%, such as 50%, not {shown(text)}")
    return int(found[1])


def _off(text: str) -> bool:
    if text != "off":
        raise ValueError(f"expected off, or a section with keys, not {shown(text)}{did_you_mean(text, ('off',))}")
    return True


def _slow_call(text: str) -> int | None:
    return None if text == "off" else duration_ns(text)


def _window(text: str) -> int:
    length = duration_ns(text)
    if length > _LONGEST_WINDOW_NS:
        raise ValueError(f"expected a window of a day at the most, not {shown(text)}")
    return length


def _calls(text: str) -> int:
    number = count(text)
    if not 1 <= number <= _MOST_CALLS:
        raise ValueError(f"expected a number of calls from 1 to {_MOST_CALLS}, not {shown(text)}")
    return number


def _probes(text: str) -> int:
    number = count(text)
    if not 1 <= number <= MOST_PROBES:
        raise ValueError(f"expected 1 to {MOST_PROBES} probes, not {shown(text)}")
    return number
