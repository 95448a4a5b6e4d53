"""Sections of the configuration's contract that this version does not act on: checked for typos, never silently left unheeded.

What would be missed in silence (alert rules, channels) is an error; what fails aloud when it is used is a warning.
"""

from holdfast.config.document import Section
from holdfast.config.quantities import duration_ns, flag, size_bytes


def read_later_sections(top: Section) -> None:
    """The keys `rules`, `default_rules`, `channels` and `storage` of the file."""
    _check_storage(top)
    top.read("default_rules", flag, True)
    for value in top.items("rules"):
        value.error("alert rules are not supported by this version")
    for _, value in top.section("channels").every():
        value.error("alert channels are not supported by this version")


def _check_storage(top: Section) -> None:
    storage = top.section("storage")
    storage.read("retention", duration_ns, 0)
    storage.read("max_size", size_bytes, 0)
    storage.close()
    written = top.get("storage")
    if written is not None:
        written.warn("this version deletes nothing by itself: the record grows until its files are removed")
