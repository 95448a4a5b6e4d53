"""What becomes of calls that nothing can serve now: parts of an agent's section."""

from holdfast.config.document import Section
from holdfast.config.quantities import duration_ns, shown
from holdfast.errors import did_you_mean
from holdfast.policy.waiting_line import PRIORITIES, Priority, QueueOptions


def read_queue(section: Section, timeouts: Section) -> QueueOptions:
    """The keys `on_unavailable` and `priority` of an agent, and `queue` of its time-outs."""
    found = QueueOptions(
        waits=section.read("on_unavailable", _waits, False),
        longest_ns=timeouts.read("queue", duration_ns, None),
        priority=section.read("priority", _priority, "normal"),
    )
    for value in (section.get("priority"), timeouts.get("queue")):
        if value is not None and not found.waits:
            value.warn("has no effect without on_unavailable: queue")
    return found


def _waits(text: str) -> bool:
    if text not in ("queue", "refuse"):
        raise ValueError(f"expected queue or refuse, not {shown(text)}{did_you_mean(text, ('queue', 'refuse'))}")
    return text == "queue"


def _priority(text: str) -> Priority:
    for priority in PRIORITIES:
        if text == priority:
            return priority
    raise ValueError(f"expected high, normal or low, not {shown(text)}{did_you_mean(text, PRIORITIES)}")
