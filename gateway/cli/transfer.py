"""`gmi-gateway keys export` and `keys import`: teams and keys as one YAML document."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.administering import Desk, check_secrets_can_be_shown, printed
from gateway.cli.api import Refused
from gateway.cli.finding import team_filter
from gateway.cli.options import said
from gateway.cli.printing import Record, json_text, program


async def export(
    desk: Desk,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file to write; standard output by default.")
    ] = None,
    team: Annotated[
        str | None, typer.Option("--team", help="Name or id of a team: that one alone.", show_default=False)
    ] = None,
    *,
    with_digests: Annotated[
        bool,
        typer.Option(
            "--with-digests",
            metavar="",
            help="With the SHA-256 of each secret, for an import elsewhere: nobody can use a key by it, nor need have"
            " it, so a file of --output is its owner's alone (0600). For admins.",
        ),
    ] = False,
) -> None:
    """Print teams and keys as YAML, without secrets. With --json, as JSON."""
    asked = said(team=await team_filter(desk.api, team), with_digests="true" if with_digests else None)
    text = (await desk.api.ask("GET", "/export", params=asked)).text
    if desk.printer.as_json:
        import yaml  # noqa: PLC0415

        text = json_text(yaml.safe_load(text), indent=2) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        _write(output, text, is_private=with_digests)
    except OSError as error:
        raise typer.BadParameter(f"cannot be written: {error.strerror}", param_hint="--output") from None


def _write(file: Path, text: str, *, is_private: bool) -> None:
    """Raises OSError; BadParameter for a file that is there already, but not for a pipe or a device."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if is_private else 0o666)
    except FileExistsError:
        if file.is_file() or file.is_symlink():
            raise _there_already(file) from None
        descriptor = os.open(file, os.O_WRONLY)
    with os.fdopen(descriptor, "w", encoding="utf-8") as writer:
        writer.write(text)


def _there_already(file: Path) -> typer.BadParameter:
    return typer.BadParameter(f"{file} is there already, and may hold secrets", param_hint="--output")


async def import_(
    desk: Desk,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="YAML or JSON as `keys export` prints it; - for standard input.")
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NEW",
            help="New file for the answer as JSON, with the new secrets, which are then not printed: its owner's alone"
            " (0600). A dry run makes none.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Say what would be done, and do nothing.")
    ] = False,
) -> None:
    """Make or change teams and keys until they are as a file says; new secrets are printed, this once.

    A new key with a secret_sha256 in the file keeps the secret that has it, which only an admin may ask for.
    """
    if output is None or dry_run:
        check_secrets_can_be_shown()
        done = await _import(desk, _content(file), is_dry=dry_run)
        with printed(_lost(done, "printed")) if _secrets(done) else contextlib.nullcontext():
            _show(desk, done)
            return
    done = await _import_into(output, desk, _content(file))
    if not desk.printer.as_json and sys.stdout is not None:
        _show(desk, done, kept_in=output)


async def _import_into(output: Path, desk: Desk, content: bytes) -> Record:
    """What was done, written to a file that is made before anything is. Raises `Refused`, BadParameter."""
    with _new_private(output) as descriptor:
        done = await _import(desk, content, is_dry=False)
        left = f"{json_text(done, indent=2)}\n".encode()
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError as error:
            lost = f" {_lost(done, 'written')}" if _secrets(done) else ""
            raise Refused(f"{output} cannot be written: {error.strerror}.{lost}") from None
    return done


async def _import(desk: Desk, content: bytes, *, is_dry: bool) -> Record:
    response = await desk.api.ask(
        "POST",
        "/import",
        params={"dry_run": str(is_dry).lower()},
        content=content,
        headers={"content-type": "application/yaml"},
    )
    done: Record = response.json()
    return done


def _secrets(done: Record) -> list[tuple[str, str]]:
    """The new secrets, and whose they are."""
    return [(_name(key), key["secret"]) for key in done["made_keys"] if key["secret"]]


def _lost(done: Record, what: str) -> str:
    whose = ", ".join(name for name, _ in _secrets(done))
    cure = f"Get others with {program()} keys rotate TEAM/NAME"
    return f"The secrets of {whose} could not be {what} and are lost. {cure}."


@contextlib.contextmanager
def _new_private(file: Path) -> Iterator[int]:
    """A file for its owner alone, gone again where what is to fill it fails. Raises BadParameter if there is one."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise _there_already(file) from None
    except OSError as error:
        raise typer.BadParameter(f"cannot be written: {error.strerror}", param_hint="--output") from None
    try:
        yield descriptor
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _content(file: str) -> bytes:
    """What it holds; `-` is standard input. Raises BadParameter."""
    if file == "-" and sys.stdin is None:
        raise typer.BadParameter("cannot be read: standard input is closed", param_hint="FILE")
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot be read: {error.strerror}", param_hint="FILE") from None


def _show(desk: Desk, done: Record, *, kept_in: Path | None = None) -> None:
    """`kept_in`: a file that has the secrets, which are then not shown."""
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
    if kept_in is None:
        desk.printer.secrets(_secrets(done))
    elif _secrets(done):
        desk.printer.line(f"The secrets are in {kept_in}, and nowhere else.")
    dry = " This was a dry run: nothing was done." if done["dry_run"] else ""
    desk.printer.line(f"{len(rows)} made or changed, {done['unchanged']} as the file says already.{dry}")


def _name(key: Record) -> str:
    return f"{key['team']}/{key['name']}"
