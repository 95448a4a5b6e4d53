"""`holdfast jobs`: the calls that are answered later: how they stand, what was answered, cancel one."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli._options import AsJson, ConfigUnread, DataDir, data_dir
from holdfast.errors import HoldfastError, UsageError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast.cli._output import Text
    from holdfast.policy.job import Job
    from holdfast.store.jobs import JobFiles

PLUGIN = typer.Typer(
    help="Calls that are answered later (`Prefer: respond-async`).\n\n\b\nExample:\n  holdfast jobs list --status failed",
    no_args_is_help=True,
)

_STATUSES = ("queued", "running", "done", "failed", "cancelled")


def _identifiers(context: typer.Context, incomplete: str) -> list[str]:
    """For completion in a shell: the latest jobs."""
    try:
        files = _files(data_dir(context.params.get("data")))
        jobs = () if files is None else islice(files.all(), 50)
        return [job.submitted.id for job in jobs if job.submitted.id.startswith(incomplete)]
    except (HoldfastError, OSError):  # whoever presses a key wants no message
        return []


def _statuses(incomplete: str) -> list[str]:
    return [status for status in _STATUSES if status.startswith(incomplete)]


Identifier = Annotated[
    str, typer.Argument(metavar="ID", help="The job, or the first characters of its id.", autocompletion=_identifiers, show_default=False)
]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Show at most N.")]
Status = Annotated[
    str,
    typer.Option(
        "--status",
        metavar="STATUS",
        help="Only those that are queued, running, done, failed or cancelled.",
        autocompletion=_statuses,
        show_default=False,
    ),
]


@PLUGIN.command("list")
def list_(status: Status = "", limit: Limit = 50, as_json: AsJson = False, data: DataDir = None, config: ConfigUnread = None) -> None:
    """List jobs, newest first.

    \b
    Examples:
      holdfast jobs list --status failed
      holdfast jobs list --json | jq .id
    """
    from holdfast.cli._output import note, print_json
    from holdfast.policy.job import describe

    if status and status not in _STATUSES:
        raise UsageError(f"no job is ever '{status}'{did_you_mean(status, _STATUSES)}")
    where = data_dir(data)
    files = _files(where)
    jobs = [] if files is None else list(islice((job for job in files.all() if status in ("", job.status)), limit))
    if as_json:
        print_json(map(describe, jobs))
    elif jobs:
        _print_table(jobs)
    if not jobs and status:
        note(f"No job is {status} in {where}.")
    elif not jobs:
        note(f"No jobs in {where}. A call becomes one with the header Prefer: respond-async; see docs/jobs.md.")


@PLUGIN.command()
def show(identifier: Identifier, as_json: AsJson = False, data: DataDir = None, config: ConfigUnread = None) -> None:
    """Show one: how it stands, and what was answered.

    \b
    Example:
      holdfast jobs show 019ab2c3
    """
    from holdfast.cli._output import print_json, print_page
    from holdfast.policy.job import describe

    job = _named(data_dir(data), identifier)[1]
    if as_json:
        answered = job.answered
        body = {} if answered is None else {"body": answered.body.decode("utf-8", "replace")}
        print_json([describe(job) | body])
    else:
        print_page(_page(job))


@PLUGIN.command()
def cancel(identifier: Identifier, data: DataDir = None, config: ConfigUnread = None) -> None:
    """Cancel one that is queued, also between two tries.

    \b
    Example:
      holdfast jobs cancel 019ab2c3
    """
    from holdfast.policy.job import Cancelled
    from holdfast.system_clock import SystemClock

    files, job = _named(data_dir(data), identifier)
    claim = files.claim("waiting", job.submitted.id)
    if claim is None or claim.job.ended_at is not None:
        if claim is not None:
            claim.release()
        status = job.status if job.ended_at is not None else "being tried right now"
        raise HoldfastError(f"the job {job.submitted.id} is {status}; only a queued one can be cancelled")
    claim.append(Cancelled(at=SystemClock().wall_ns()))
    claim.move("ended")
    print(f"Cancelled the job {job.submitted.id}.")


def _files(where: "Path") -> "JobFiles | None":
    """None where no job was ever taken: nothing is created by looking."""
    from holdfast.store.jobs import FOLDER, JobFiles

    return JobFiles(where) if (where / FOLDER).is_dir() else None


def _named(where: "Path", prefix: str) -> "tuple[JobFiles, Job]":
    from holdfast.store.jobs import STAGES

    files = _files(where)
    names = [] if files is None else [each for stage in STAGES for each in files.ids(stage) if each.startswith(prefix)]
    if len(names) > 1:
        raise HoldfastError(f"{prefix} is the beginning of {len(names)} jobs, name one whole: {', '.join(names[:3])}")
    job = files.read(names[0]) if files is not None and names else None
    if files is None or job is None:
        raise HoldfastError(f"no job {prefix} in {where}: `holdfast jobs list` shows them")
    return files, job


def _print_table(jobs: "list[Job]") -> None:
    from holdfast.cli._output import Column, local_time, print_table

    columns = (
        Column("ID", fixed=True),
        Column("STATUS", fixed=True),
        Column("CREATED", fixed=True, spare=2),
        Column("AGENT"),
        Column("MODEL", spare=3),
        Column("TRIES", fixed=True, right=True, spare=1),
        Column("ANSWER", fixed=True, right=True, spare=1),
    )
    rows = (
        (
            job.submitted.id,
            job.status,
            local_time(job.submitted.at),
            job.submitted.name,
            job.submitted.model,
            str(job.tries),
            "" if job.answered is None else str(job.answered.status),
        )
        for job in jobs
    )
    print_table(columns, rows)


def _page(job: "Job") -> "list[Text]":
    from holdfast.cli._output import Text, one_line
    from holdfast.policy.job import describe

    lines: list[Text] = []
    for name, value in describe(job).items():
        if value not in (None, ""):
            lines.append(Text(f"{name.replace('_', ' ')}: {one_line(_shown(value))}"))
    if job.answered is not None:
        lines += [Text(""), Text(job.answered.body.decode("utf-8", "replace"))]
    return lines


def _shown(value: Any) -> str:
    return ", ".join(f"{key} {each}" for key, each in value.items() if each != "") if isinstance(value, dict) else str(value)
