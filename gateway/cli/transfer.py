"""`gmi-gateway keys export` and `keys import`: teams and keys as one YAML document."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.administering import Desk
from gateway.cli.printing import Record


async def export(
    desk: Desk,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output by default.")
    ] = None,
) -> None:
    """Print teams and keys as YAML, without secrets. With --json, as JSON."""
    text = (await desk.api.ask("GET", "/export")).text
    if desk.printer.as_json:
        import json  # noqa: PLC0415

        import yaml  # noqa: PLC0415

        text = json.dumps(yaml.safe_load(text), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, "utf-8")


async def import_(
    desk: Desk,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML as `keys export` prints it; - for standard input.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Make or change teams and keys until they are as a file says; new secrets are printed, this once."""
    content = sys.stdin.buffer.read() if file == "-" else _content(Path(file))
    response = await desk.api.ask(
        "POST",
        "/import",
        params={"dry_run": str(dry_run).lower()},
        content=content,
        headers={"content-type": "application/yaml"},
    )
    done: Record = response.json()
    if desk.printer.as_json:
        desk.printer.json(done)
        return
    _show(desk, done)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint="FILE") from None


def _show(desk: Desk, done: Record) -> None:
    rows = [
        *(("team", team["name"], "made", "") for team in done["made_teams"]),
        *(("team", team["name"], "changed", "") for team in done["changed_teams"]),
        *(("key", _name(key), "made", key["secret"] or "") for key in done["made_keys"]),
        *(("key", _name(key), "changed", "") for key in done["changed_keys"]),
    ]
    if rows:
        desk.printer.rows(("what", "name", "was", "secret, shown once"), rows)
    dry = " This was a dry run: nothing was done." if done["dry_run"] else ""
    desk.printer.line(f"{len(rows)} made or changed, {done['unchanged']} as the file says already.{dry}")


def _name(key: Record) -> str:
    return f"{key['team']}/{key['name']}"
