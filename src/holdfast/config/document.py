"""A YAML file as values that know their line: hostile files end in a ConfigError, every fault of a file is reported at once.

YAML's own types are not used: each value is read from its text by what its key expects, so that `0.10` is exactly ten cents, `2.30` as a
version stays text, and `on` is a word.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import yaml

from holdfast.errors import ConfigError, did_you_mean

T = TypeVar("T")

MAX_SIZE = 4 * 1024 * 1024
"""Bytes of a configuration file."""

MAX_VALUES = 500_000
"""Values read from one file, aliases counted as often as they are used."""

MAX_DEPTH = 50
"""Sections and lists within each other."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml, in every wheel of PyYAML: a file of 10,000 agents takes it a second, and the same in Python ten."""

_PLAIN = "tag:yaml.org,2002:"
_TAGS = {_PLAIN + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge", "value")}


class Problems:
    """Collects what is wrong, and what only deserves a warning, with where it is."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._errors: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []
        self._values = 0

    def error(self, line: int, path: str, text: str) -> None:
        self._errors.append((line, self._message(line, path, text)))

    def warn(self, line: int, path: str, text: str) -> None:
        self._warnings.append((line, self._message(line, path, text)))

    def environment_error(self, variable: str, text: str) -> None:
        """An error of the environment; reported after those of the file."""
        self._errors.append((sys.maxsize, f"{variable}: {text}"))

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(message for _, message in sorted(self._warnings))

    def count(self) -> None:
        """Count one more value; raises ConfigError for a file that unfolds to too many."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise ConfigError(f"{self.file}: more than {MAX_VALUES} values; aliases count as often as they are used")

    def check(self) -> None:
        """Raises ConfigError with every error so far, in the order of the file."""
        if self._errors:
            raise ConfigError("\n".join(message for _, message in sorted(self._errors)))

    def _message(self, line: int, path: str, text: str) -> str:
        where = f"{self.file}:{line}" if line else self.file
        return f"{where}: {path}: {text}" if path else f"{where}: {text}"


class Value:
    """One value of the file. path: its keys, joined by dots; line: where it is written, its key if it has one."""

    def __init__(self, node: yaml.Node, path: str, line: int, problems: Problems) -> None:
        problems.count()
        self._node = node
        self._problems = problems
        self.path = path
        self.line = line
        if node.tag not in _TAGS:
            self.error("tags are not supported")

    @property
    def absent(self) -> bool:
        """Nothing was written after the key: the default holds."""
        return isinstance(self._node, yaml.ScalarNode) and self._node.tag == _PLAIN + "null"

    @property
    def is_list(self) -> bool:
        return isinstance(self._node, yaml.SequenceNode)

    @property
    def is_section(self) -> bool:
        return isinstance(self._node, yaml.MappingNode)

    def error(self, text: str) -> None:
        self._problems.error(self.line, self.path, text)

    def warn(self, text: str) -> None:
        self._problems.warn(self.line, self.path, text)

    def read(self, parse: Callable[[str], T]) -> T | None:
        """What `parse` makes of the text; a ValueError of its becomes an error here, and None."""
        if not isinstance(self._node, yaml.ScalarNode):
            self.error("expected a single value, not a list or a section")
            return None
        try:
            return parse(self._node.value)
        except ValueError as error:
            self.error(str(error))
            return None

    def check(self, parse: Callable[[str], object], name: str) -> None:
        """Report what `parse` finds wrong with the key's own name."""
        try:
            parse(name)
        except ValueError as error:
            self.error(str(error))

    def items(self) -> list["Value"]:
        """The items of a list."""
        if self.absent:
            return []
        if not isinstance(self._node, yaml.SequenceNode):
            self.error("expected a list, such as [this, that]")
            return []
        return [
            Value(item, f"{self.path}[{position}]", item.start_mark.line + 1, self._problems)
            for position, item in enumerate(self._node.value, 1)
        ]

    def section(self, example: str = "") -> "Section":
        """The keys of a section; empty for anything else, which is an error. example: of such a section, for its message."""
        if isinstance(self._node, yaml.MappingNode):
            return Section(self.path, self.line, self._entries(self._node), self._problems)
        if not self.absent:
            self.error(f"expected a section with keys{f', such as {example}' if example else ''}")
        return Section(self.path, self.line, {}, self._problems, reported=not self.absent)

    def _entries(self, node: yaml.MappingNode) -> dict[str, "Value"]:
        entries: dict[str, Value] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            path = f"{self.path}.{name}" if self.path else name
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._problems.error(line, self.path, "a key must be a single word")
            elif name in entries:
                self._problems.error(line, path, f"written twice, first on line {entries[name].line}")
            else:
                entries[name] = Value(value, path, line, self._problems)
        return entries


class Section:
    """The keys of one section, each asked for by name; `close` reports those that nobody asked for.

    reported: it was no section at all, which is known by now: what it lacks is not reported as well.
    """

    def __init__(self, path: str, line: int, entries: dict[str, Value], problems: Problems, reported: bool = False) -> None:
        self.path = path
        self.line = line
        self.problems = problems
        self._entries = entries
        self._asked: set[str] = set()
        self._reported = reported

    def error(self, text: str) -> None:
        if not self._reported:
            self.problems.error(self.line, self.path, text)

    def get(self, key: str) -> Value | None:
        """The value of a key; None where it is not written, or nothing stands after it."""
        self._asked.add(key)
        value = self._entries.get(key)
        return None if value is None or value.absent else value

    def blank(self, key: str) -> Value | None:
        """A key that is written, with nothing after it."""
        value = self._entries.get(key)
        return value if value is not None and value.absent else None

    def read(self, key: str, parse: Callable[[str], T], default: T) -> T:
        """What `parse` makes of the key's text; `default` where it is not written (or wrong, which is reported)."""
        value = self.get(key)
        found = None if value is None else value.read(parse)
        return default if found is None else found

    def items(self, key: str) -> list[Value]:
        value = self.get(key)
        return [] if value is None else value.items()

    def section(self, key: str, example: str = "") -> "Section":
        """The keys of a section within this one. example: of it, for the message where there is something else."""
        value = self.get(key)
        return Section(f"{self.path}.{key}".lstrip("."), self.line, {}, self.problems) if value is None else value.section(example)

    def every(self) -> list[tuple[str, Value]]:
        """All keys, for sections whose keys are names that the user chose."""
        self._asked |= self._entries.keys()
        return list(self._entries.items())

    def close(self) -> None:
        for key in self._entries.keys() - self._asked:
            value = self._entries[key]
            value.error(f"unknown key{did_you_mean(key, self._asked)}")


def read_document(text: str, problems: Problems) -> Section:
    """The top of a file; raises ConfigError for what is not one YAML document made of sections, lists and plain values."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_SIZE:
        raise ConfigError(f"{problems.file}: longer than {MAX_SIZE // 1024} KiB")
    try:
        if _depth(text) > MAX_DEPTH:
            raise ConfigError(f"{problems.file}: nested too deeply")
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{problems.file}:{line}: not valid YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # unprintable characters; numbers in directives and escapes
        raise ConfigError(f"{problems.file}: not valid YAML: {' '.join(str(error).split())}") from None
    if node is None:
        return Section("", 0, {}, problems)
    return Value(node, "", node.start_mark.line + 1, problems).section()


def _depth(text: str) -> int:
    """How deep sections and lists lie in each other; asked first, because composing a tree of any depth would end the process."""
    depth = deepest = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return deepest


def read_text(path: Path) -> str:
    """The file's text; raises ConfigError naming the file."""
    try:
        if path.is_file() and path.stat().st_size > MAX_SIZE:
            raise ConfigError(f"{path}: longer than {MAX_SIZE // 1024} KiB")
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
