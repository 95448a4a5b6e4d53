"""What was asked of `holdfast run`, checked, before anything is started."""

from pathlib import Path

from msgspec import Struct

from holdfast.money import Nano


class RunRequest(Struct, frozen=True, kw_only=True):
    """One `holdfast run`. Names: "" where none was given. Limits: None where there is none; each holds for this run alone.

    timeout_ns: > 0. max_retries: >= 0, of one call. cost_limit: nano-dollars >= 0. call_limit, calls_per_hour: attempts at a
    provider, >= 0. token_limit: tokens read and generated, >= 0. summary: where the summary goes as JSON. look_up:
    options with which other commands find the record.
    """

    command: tuple[str, ...]
    config: Path | None
    data_dir: Path
    agent: str = ""
    release: str = ""
    user: str = ""
    timeout_ns: int | None = None
    max_retries: int | None = None
    cost_limit: Nano | None = None
    call_limit: int | None = None
    calls_per_hour: int | None = None
    token_limit: int | None = None
    summary: Path | None = None
    look_up: str = ""
