"""When an agent goes round in circles: the key `loop_guard` of an agent's section, `off` or a section of its own."""

from msgspec.structs import replace

from holdfast.config.document import Section, Value
from holdfast.config.quantities import count, shown
from holdfast.policy.loop_guard import LoopOptions

_MOST = 1_000_000


def read_loop_guard(section: Section) -> LoopOptions | None:
    """The options; None where the guard is off, the defaults where nothing is written."""
    value = section.get("loop_guard")
    if value is None:
        return LoopOptions()
    if not value.is_section:
        value.read(_off)
        return None
    return _options(value.section())


def _options(section: Section) -> LoopOptions:
    known = LoopOptions()
    found = replace(
        known,
        same_call=section.read("same_call", _rounds, known.same_call),
        cycle=section.read("cycle", _rounds, known.cycle),
        no_new_result=section.read("no_new_result", _rounds, known.no_new_result),
        same_result=section.read("same_result", _rounds, known.same_result),
        max_turns=section.read("max_turns", _rounds, known.max_turns),
        growth=section.read("growth", _growth, known.growth),
        warn_at=section.read("warn_at", _warn_at, known.warn_at),
        polling=frozenset(name for name in map(_tool, section.items("polling")) if name),
    )
    section.close()
    return found


def _off(text: str) -> None:
    if text != "off":
        raise ValueError(f"expected off, or a section such as {{same_call: 8}}, not {shown(text)}")


def _rounds(text: str) -> int:
    if text == "off":
        return 0
    number = count(text)
    if number == 1 or number > _MOST:
        raise ValueError(f"expected off, or a whole number from 2 to {_MOST}, not {shown(text)}")
    return number


def _growth(text: str) -> int:
    return 0 if text in ("off", "0") else _percent(text, 10, 10_000)


def _warn_at(text: str) -> int:
    return _percent(text, 1, 100)


def _percent(text: str, least: int, most: int) -> int:
    number = text.removesuffix("%")
    if not (text.endswith("%") and number.isascii() and number.isdecimal() and len(number) < 10) or not least <= int(number) <= most:
        raise ValueError(f"expected a percentage from {least}% to {most}%, not {shown(text)}")
    return int(number)


def _tool(value: Value) -> str | None:
    return value.read(_tool_name)


def _tool_name(text: str) -> str:
    if not 0 < len(text) <= 64:
        raise ValueError("expected the name of a tool, of at most 64 characters")
    return text
