"""`holdfast up`: gateway and control plane until stopped."""

from typing import Annotated

import typer

from holdfast.cli import _options
from holdfast.errors import UsageError


def up(
    config: _options.ConfigFile = None,
    data_dir: _options.DataDir = None,
    gateway: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where agents send their calls.")] = "127.0.0.1:8787",
    control: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where people look.")] = "127.0.0.1:8788",
    workers: Annotated[int, typer.Option(metavar="N", min=1, max=64, help="Gateway processes.")] = 1,
) -> None:
    """Run the gateway and the control plane until Ctrl-C.

    Prints one line with both addresses once both answer. Both have /healthz and /readyz.

    \b
    Example:
      holdfast up --config holdfast.yaml --workers 2
    """
    from holdfast.assembly import supervisor  # the data plane: not loaded for `--help`

    request = supervisor.UpRequest(
        config=_options.config_file(config),
        data_dir=_options.data_dir(data_dir),
        gateway=_address("--gateway", gateway),
        control=_address("--control", control),
        workers=workers,
    )
    supervisor.up(request, lambda line: print(line, flush=True))


def _address(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{option} {text} is not HOST:PORT, such as 127.0.0.1:8787")
    return host, int(port)


PLUGIN = up
