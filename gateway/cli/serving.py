"""`gmi-gateway serve`, as it is typed. What it then does takes a second to import, and is `gateway.cli.starting`."""

from typing import Annotated

import typer

from gateway.cli.options import ConfigOption, HostOption, PortOption


def serve_command(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    *,
    simulator: Annotated[
        bool | None,
        typer.Option(
            "--simulator",
            metavar="",
            help="Let a simulator answer, also with a GMI key, or where there was one before.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default: 1).")] = None,
) -> None:
    """Run the gateway; without a GMI key, against a simulator."""
    from gateway.cli.starting import start  # noqa: PLC0415

    said = {"server.host": host, "server.port": port, "server.workers": workers, "upstream.simulator": simulator}
    start(config, said)
