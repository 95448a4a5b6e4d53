"""Sections of the configuration's contract that this version does not act on: checked for typos, never silently left unheeded.

What would be missed in silence (alert rules, channels) is an error; what fails aloud when it is used is a warning.
"""

from holdfast.config.addresses import address
from holdfast.config.document import Section
from holdfast.config.quantities import duration_ns, flag, money, size_bytes


def read_later_sections(top: Section) -> None:
    """The keys `tools`, `rules`, `default_rules`, `channels` and `storage` of the file."""
    _check_storage(top)
    top.read("default_rules", flag, True)
    for value in top.items("rules"):
        value.error("alert rules are not supported by this version")
    for _, value in top.section("channels").every():
        value.error("alert channels are not supported by this version")
    for _, value in top.section("tools").every():
        _check_tool(value.section())
        value.warn("tools are not guarded by this version: calls to them through Holdfast are refused")


def _check_storage(top: Section) -> None:
    storage = top.section("storage")
    storage.read("retention", duration_ns, 0)
    storage.read("max_size", size_bytes, 0)
    storage.close()
    written = top.get("storage")
    if written is not None:
        written.warn("this version deletes nothing by itself: the record grows until its files are removed")


def _check_tool(section: Section) -> None:
    section.read("base_url", lambda text: address(text, insecure=True), None)
    for _, header in section.section("headers").every():
        header.read(str)
    section.read("timeout", duration_ns, 0)
    section.read("price_per_call", money, 0)
    section.close()
