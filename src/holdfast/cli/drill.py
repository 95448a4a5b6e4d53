"""`holdfast drill`: what Holdfast promises, measured on this machine."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli._options import AsJson

if TYPE_CHECKING:
    from holdfast.cli._output import Text
    from holdfast.drill.kill import Measured

PLUGIN = typer.Typer(help="Measure on this machine what Holdfast promises.", no_args_is_help=True)


@PLUGIN.callback()
def _group() -> None:
    """Measure on this machine what Holdfast promises."""


@PLUGIN.command()
def kill(
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Gateway processes.")] = 2,
    rate: Annotated[int, typer.Option(metavar="R", min=1, max=10_000, help="Calls a second.")] = 100,
    streams: Annotated[int, typer.Option(metavar="N", min=0, max=5000, help="Streams that are open.")] = 50,
    seconds: Annotated[float, typer.Option(metavar="S", min=1, max=600, help="Time under load, half of it before the kill.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Measure the kill switch: nothing of yours is touched.

    Gateways of its own under load, a simulated provider, the real command.

    \b
    Example:
      holdfast drill kill --workers 4 --rate 500 --streams 200

    Exit code: 1 if anything was admitted after the command had returned, or a stream did not end as it should.
    """
    import tempfile
    from pathlib import Path

    from msgspec import structs

    from holdfast.cli._output import print_json, print_page
    from holdfast.drill.kill import DrillOptions, kill_drill

    with tempfile.TemporaryDirectory(prefix="holdfast-drill-") as folder:
        measured = kill_drill(DrillOptions(workers=workers, rate=rate, streams=streams, seconds=seconds), Path(folder))
    if as_json:
        print_json([structs.asdict(measured) | {"failures": measured.failures, "passed": not measured.failures}])
    else:
        print_page(_page(measured))
    raise typer.Exit(1 if measured.failures else 0)


def _page(measured: "Measured") -> "Iterator[Text]":
    from holdfast.cli._output import Text

    failures = measured.failures
    yield Text(f"FAIL: {'; '.join(failures)}" if failures else "PASS: not one call was admitted after the command had returned", "bold")
    rows = (
        ("load", f"{measured.rate} calls/s on {measured.workers} workers: {measured.served_before} served before the kill"),
        ("holdfast kill", f"returned after {measured.command_ms} ms, {measured.confirmed_ms} ms of them until every worker had confirmed"),
        ("last admitted", f"{measured.last_admitted_ms} ms before the return"),
        ("after return", f"{measured.admitted_after_return} admitted, {measured.refused_after} refused"),
        (
            "streams",
            f"{measured.streams_well_formed} of {measured.streams} ended with the error event, {measured.streams_ended_ms} ms "
            "after the command was started",
        ),
        ("resume", f"returned after {measured.resume_ms} ms; first call served {measured.first_call_ms} ms later"),
    )
    for name, text in rows:
        yield Text(f"  {name:<14} {text}")
