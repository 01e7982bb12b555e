"""`gmi-gateway keys export` and `keys import`: teams and keys as one YAML document."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.administering import Desk, check_secrets_can_be_shown, printed
from gateway.cli.options import said
from gateway.cli.printing import Record


async def export(
    desk: Desk,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; standard output by default.")
    ] = None,
    team: Annotated[
        str | None, typer.Option("--team", help="Name or id of a team: that one alone.", show_default=False)
    ] = None,
) -> None:
    """Print teams and keys as YAML, without secrets. With --json, as JSON."""
    text = (await desk.api.ask("GET", "/export", params=said(team=team))).text
    if desk.printer.as_json:
        import json  # noqa: PLC0415

        import yaml  # noqa: PLC0415

        text = json.dumps(yaml.safe_load(text), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise typer.BadParameter(f"cannot be written: {error.strerror}", param_hint="--output") from None


async def import_(
    desk: Desk,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML as `keys export` prints it; - for standard input.")],
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Make or change teams and keys until they are as a file says; new secrets are printed, this once."""
    check_secrets_can_be_shown()
    content = _standard_input() if file == "-" else _content(Path(file))
    response = await desk.api.ask(
        "POST",
        "/import",
        params={"dry_run": str(dry_run).lower()},
        content=content,
        headers={"content-type": "application/yaml"},
    )
    done: Record = response.json()
    made = ", ".join(_name(key) for key in done["made_keys"] if key["secret"])
    lost = f"The secrets of {made} could not be printed and are lost"
    with printed(f"{lost}. Get others with gmi-gateway keys rotate TEAM/NAME.") if made else contextlib.nullcontext():
        _show(desk, done)


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise typer.BadParameter("cannot be read: standard input is closed", param_hint="FILE")
    return sys.stdin.buffer.read()


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint="FILE") from None


def _show(desk: Desk, done: Record) -> None:
    if desk.printer.as_json:
        desk.printer.json(done)
        return
    rows = [
        *(("team", team["name"], "made") for team in done["made_teams"]),
        *(("team", team["name"], "changed") for team in done["changed_teams"]),
        *(("key", _name(key), "made") for key in done["made_keys"]),
        *(("key", _name(key), "changed") for key in done["changed_keys"]),
    ]
    if rows:
        desk.printer.rows(("what", "name", "was"), rows)
    desk.printer.secrets((_name(key), key["secret"]) for key in done["made_keys"] if key["secret"])
    dry = " This was a dry run: nothing was done." if done["dry_run"] else ""
    desk.printer.line(f"{len(rows)} made or changed, {done['unchanged']} as the file says already.{dry}")


def _name(key: Record) -> str:
    return f"{key['team']}/{key['name']}"
