"""`gmi-gateway serve`: the gateway, or, without a GMI key, the gateway in front of a simulator."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from gateway import __version__
from gateway.access.keys import new_secret
from gateway.app import bind, serve
from gateway.cli.settings import ConfigOption, HostOption, PortOption, load_or_exit, print_finding
from gateway.configuration import is_loopback
from gateway.doctor.findings import KEYS_PAGE
from gateway.doctor.port import cannot_listen, local_url
from gateway.settings import Key, Settings

_MODEL = "openai/gpt-5.2"


def serve_command(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default: 1).")] = None,
) -> None:
    """Run the gateway; without a GMI key, against a simulator."""
    overrides = {"server.host": host, "server.port": port, "server.workers": workers}
    settings = load_or_exit(config, overrides, code=2).settings
    try:
        listener = bind(settings)
    except OSError as error:
        print_finding(cannot_listen(settings.server, error), err=True)
        raise typer.Exit(1) from None
    with listener, _upstream_of(settings, listener.getsockname()[1]) as ready:
        serve(ready, listener)


@contextmanager
def _upstream_of(settings: Settings, port: int) -> Iterator[Settings]:
    """The settings to run with. Without an upstream key: those of a simulator, which runs for as long."""
    if settings.upstream.api_key is not None:
        _welcome(settings, port)
        yield settings
        return
    # It takes 35 ms to import, which a gateway with a key need not wait for.
    from gateway.simulator import running_simulator  # noqa: PLC0415

    with running_simulator() as simulator_url:
        demo_secret = None if settings.keys else new_secret()
        _introduce_simulator(settings.server.host, port, demo_secret)
        yield _simulated(settings, simulator_url, demo_secret)


def _simulated(settings: Settings, simulator_url: str, demo_secret: str | None) -> Settings:
    """`settings` with the simulator as upstream, reached directly, and a key for a first try."""
    direct = {"transport": "auto", "proxy": None, "ca_file": None, "organization_id": None}
    upstream = {"base_url": simulator_url, "api_key": SecretStr(new_secret()), **direct}
    changed: dict[str, Any] = {"upstream": settings.upstream.model_copy(update=upstream)}
    if demo_secret is not None:
        changed["keys"] = (Key(name="demo", team="demo", secret=SecretStr(demo_secret)),)
    return settings.model_copy(update=changed)


def _welcome(settings: Settings, port: int) -> None:
    host, base_url = settings.server.host, _base_url(settings.server.host, port)
    where = f"on {base_url}" if is_loopback(host) else f"listening on {_authority(host, port)} (here: {base_url})"
    upstream = settings.upstream.base_url
    typer.echo(f"GMI gateway {__version__} {where}, upstream {upstream}, {_count(settings.keys)}.")


def _count(keys: tuple[Key, ...]) -> str:
    if not keys:
        return "no keys: whoever is on this machine may call"
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


def _introduce_simulator(host: str, port: int, demo_secret: str | None) -> None:
    warning = "SIMULATOR: no GMI key is set, so a simulator makes the answers up. No model is asked."
    typer.secho(warning, fg=typer.colors.YELLOW, bold=True)
    typer.echo("For the real models, set GMI_API_KEY (or GMI_API_KEY_FILE) and start it again.")
    typer.echo(f"Make a key at {KEYS_PAGE}.")
    base_url = _base_url(host, port)
    where = base_url if is_loopback(host) else f"{base_url}, listening on {_authority(host, port)}"
    key = f"Key {demo_secret}. Try it" if demo_secret else "Try it; put one of your keys in place of YOUR_KEY"
    typer.echo(f"Base URL {where}. {key}:\n")
    typer.echo(_curl(base_url, demo_secret or "YOUR_KEY") + "\n")


def _curl(base_url: str, key: str) -> str:
    body = f'{{"model": "{_MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    headers = f'-H "Authorization: Bearer {key}" -H "Content-Type: application/json"'
    return f"curl {base_url}/chat/completions {headers} -d '{body}'"


def _base_url(host: str, port: int) -> str:
    return f"{local_url(host, port)}/v1"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
