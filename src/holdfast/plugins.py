"""The file name is the registration: finds the built-in files of a plug-in family and the entry points that extend it."""

import pkgutil
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


def names(family: str) -> list[str]:
    """The names a family offers, sorted: one per file of the package `holdfast.<family>`, plus entry points of the same group."""
    return sorted(_built_in(family) | _extensions(family).keys())


def load(family: str, name: str) -> Any:
    """The object `PLUGIN` of the file `holdfast/<family>/<name>.py`, or the entry point `name`; KeyError when there is neither."""
    extension = _extensions(family).get(name)
    if extension is not None:
        return extension.load()
    if name not in names(family):
        raise KeyError(name)
    return import_module(f"holdfast.{family}.{name}").PLUGIN


@cache
def _built_in(family: str) -> frozenset[str]:
    package = import_module(f"holdfast.{family}")
    return frozenset(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


@cache  # what is installed does not change while a process runs, and each look at it reads every distribution's metadata
def _extensions(family: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in reversed(entry_points(group=f"holdfast.{family}"))}
