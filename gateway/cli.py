"""The terminal's face: `gmi-gateway serve`, `check-config`, `doctor`, `version`.

Knows what a person at a terminal needs to read; settings, checks and the
gateway itself are others' business. Exit codes: 0 all is well, 1 something is
wrong, 2 the command or the settings cannot be used at all.
"""

import io
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from gateway import __version__
from gateway.access.keys import new_secret
from gateway.app import bind, serve
from gateway.configuration import (
    Loaded,
    SettingsError,
    changes,
    doubtful_settings,
    is_loopback,
    load,
    misspelt_variables,
)
from gateway.doctor import doubts, examine
from gateway.doctor.findings import KEYS_PAGE, Finding, Mark
from gateway.doctor.port import cannot_listen, local_url
from gateway.settings import Key, Settings

_LIBRARIES = ("fastapi", "uvicorn", "httptools", "httpx2", "msgspec", "pydantic")
_COLOURS = {Mark.GOOD: typer.colors.GREEN, Mark.WARNING: typer.colors.YELLOW, Mark.BAD: typer.colors.RED}
_MODEL = "openai/gpt-5.2"

app = typer.Typer(
    name="gmi-gateway",
    no_args_is_help=True,
    add_completion=False,
    # A pretty traceback may show the values of variables, and so a secret.
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (default: $GATEWAY_CONFIG, else config/gateway.yaml if it is there)."),
]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on (default: 127.0.0.1).")]
PortOption = Annotated[
    int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one (default: 8080).")
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gmi-gateway {__version__}")
        raise typer.Exit


@app.callback()
def options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the gateway's version."),
    ] = False,
) -> None:
    """One GMI Cloud account, shared by a team: OpenAI's API on this machine."""


@app.command("serve")
def serve_command(
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the port (default: 1).")] = None,
) -> None:
    """Run the gateway; without a GMI key, against a simulator."""
    overrides = {"server.host": host, "server.port": port, "server.workers": workers}
    settings = _load_or_exit(config, overrides, code=2).settings
    try:
        listener = bind(settings)
    except OSError as error:
        _print_finding(cannot_listen(settings.server, error), err=True)
        raise typer.Exit(1) from None
    with listener, _upstream_of(settings, listener.getsockname()[1]) as ready:
        serve(ready, listener)


@app.command()
def check_config(config: ConfigOption = None) -> None:
    """Say what is wrong with the settings, or what they are."""
    loaded = _load_or_exit(config, {}, code=1)
    typer.echo(f"The settings are valid ({loaded.file or 'no file, so defaults and environment'}).")
    for change in changes(loaded.settings, loaded.origins):
        typer.echo(f"  {change}")
    if loaded.settings.upstream.api_key is None:
        typer.echo(f"No upstream key: `serve` runs against the simulator. Make a key at {KEYS_PAGE}.")


@app.command()
def doctor(config: ConfigOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Look for what keeps the gateway from working: a line each, with the cure."""
    worst_is_bad = False
    for finding in _findings(config, {"server.host": host, "server.port": port}):
        _print_finding(finding)
        worst_is_bad |= finding.mark is Mark.BAD
    if worst_is_bad:
        raise typer.Exit(1)


@app.command()
def version() -> None:
    """Print the versions of the gateway, Python and the libraries that matter."""
    typer.echo(f"gmi-gateway {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for library in _LIBRARIES:
        typer.echo(f"{library} {version_of(library)}")


def main() -> None:
    """The entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a tick shows a question mark; it is no reason to fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    app()


def _load_or_exit(config: Path | None, overrides: Mapping[str, Any], *, code: int) -> Loaded:
    """The settings, with what is doubtful about them on standard error, or the end of this process."""
    try:
        loaded = load(config, os.environ, overrides)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        # A misspelt variable is often why a setting is missed.
        _print_findings(doubts(misspelt_variables(os.environ)), err=True)
        raise typer.Exit(code) from None
    _print_findings(doubts([*misspelt_variables(os.environ), *doubtful_settings(loaded.settings)]), err=True)
    return loaded


def _findings(config: Path | None, overrides: Mapping[str, Any]) -> Iterator[Finding]:
    try:
        loaded = load(config, os.environ, overrides)
    except SettingsError as error:
        yield from (Finding(Mark.BAD, str(problem)) for problem in error.problems)
        yield from doubts(misspelt_variables(os.environ))
        return
    yield from examine(loaded, os.environ, datetime.now(UTC))


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


def _print_findings(findings: Iterable[Finding], *, err: bool = False) -> None:
    for finding in findings:
        _print_finding(finding, err=err)


def _print_finding(finding: Finding, *, err: bool = False) -> None:
    mark = typer.style(finding.mark.value, fg=_COLOURS[finding.mark])
    cure = f"; {finding.cure}" if finding.cure else ""
    typer.echo(f"{mark} {finding.text}{cure}", err=err)
