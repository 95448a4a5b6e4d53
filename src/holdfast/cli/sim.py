"""`holdfast sim`: a simulated model provider on this machine, to try agents and limits without spending anything."""

from pathlib import Path
from typing import Annotated

import typer

from holdfast.cli._options import AsJson

_HELP = """Simulate a model provider on this machine.

It speaks the OpenAI and Anthropic formats, tools and streams included. The model's name selects what happens.

\b
Example:
  holdfast sim --port 9100
  OPENAI_BASE_URL=http://127.0.0.1:9100/v1 OPENAI_API_KEY=any python agent.py

Models: sim-ok, sim-echo, sim-tool, sim-loop, sim-slow-MS, sim-error-STATUS, sim-hang, sim-cut-stream and more; all of them:
docs/simulated-provider.md. GET /stats says what was served and billed."""


def sim(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 is any free one.")] = 0,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides which calls of sim-flaky-PERCENT fail.")] = 0,
    script: Annotated[Path | None, typer.Option(metavar="FILE.json", help="JSON file with the answers that agents get, in order.")] = None,
    key: Annotated[str, typer.Option(metavar="KEY", help="The only API key to accept; default: any.")] = "",
    as_json: AsJson = False,
) -> None:
    import asyncio
    import os

    from holdfast.errors import HoldfastError
    from holdfast.testing.simulated_provider import SimulatedProvider
    from holdfast.testing.simulated_provider.running import Address, running_until_signalled
    from holdfast.testing.simulated_provider.script import Scripts, load

    def announce(address: Address) -> None:
        if as_json:
            import msgspec

            line = {"host": address.host, "port": address.port, "openai": address.openai, "anthropic": address.anthropic}
            print(msgspec.json.encode(line).decode(), flush=True)
        else:
            print(
                f"Simulated provider: OPENAI_BASE_URL={address.openai} ANTHROPIC_BASE_URL={address.anthropic}  "
                f"(try: curl -s {address.openai}/chat/completions -d "
                """'{"model": "sim-ok", "messages": [{"role": "user", "content": "Hello"}]}')""",
                flush=True,
            )

    provider = SimulatedProvider(seed=seed, key=key, scripts=load(script) if script else Scripts())
    try:
        asyncio.run(running_until_signalled(provider.application, host, port, announce))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise HoldfastError(f"cannot listen on {host} port {port}: {reason}; choose another --port, or 0 for any free one") from None


sim.__doc__ = _HELP

PLUGIN = sim
