"""Options that several commands have: where the gateway is, and the terms of keys and teams.

Knows how an option is written and what it is in a request; one command takes a group of them as one dataclass, which
`expand` turns into options of their own. A group reads its values when it is made: what means nothing is told before a
store is opened, or a gateway asked.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from gateway.cli import values
from gateway.terms import SHORT_NAMES

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (default: $GATEWAY_CONFIG, else config/gateway.yaml if it is there)."),
]
HostOption = Annotated[str | None, typer.Option("--host", help="Address to listen on (default: 127.0.0.1).")]
PortOption = Annotated[
    int | None, typer.Option("--port", help="Port to listen on; 0 takes a free one (default: 8080).")
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.")]
_WHERE = "Where"
_TERMS = "Terms"
Value = TypeVar("Value")


class NothingSaid(typer.BadParameter):
    """No option is wrong: one is missing, and it might be any."""

    def format_message(self) -> str:
        return str(self.message)


def read(option: str, reader: Callable[[str], Value], text: str) -> Value:
    """What `reader` makes of the option's text; if nothing, the command ends with exit code 2."""
    try:
        return reader(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def read_all(option: str, reader: Callable[[str], Value], texts: Iterable[str] | None) -> list[Value]:
    """The same for an option that may be repeated."""
    return [read(option, reader, text) for text in texts or ()]


def _option(name: str, text: str, panel: str = _TERMS, metavar: str = "TEXT") -> Any:
    return typer.Option(name, help=text, rich_help_panel=panel, metavar=metavar, show_default=False)


@dataclass(frozen=True)
class Where:
    """Which gateway a command is for, and how it shows what it got."""

    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            envvar="GATEWAY_URL",
            help="A running gateway; without it, the store of the settings file is used.",
            rich_help_panel=_WHERE,
        ),
    ] = None
    key: Annotated[
        str | None,
        _option(
            "--key", "Key for --url. Others see it in the list of processes: rather set GATEWAY_ADMIN_KEY.", _WHERE
        ),
    ] = None
    key_file: Annotated[Path | None, _option("--key-file", "File that holds the key for --url.", _WHERE, "FILE")] = None
    config: ConfigOption = None
    json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.", rich_help_panel=_WHERE)
    ] = False


@dataclass(frozen=True)
class Terms:
    """What may be used, and how much of it."""

    models: Annotated[str | None, _option("--models", "Models that may be used, * as wildcard.", metavar="A,B|any")] = (
        None
    )
    routes: Annotated[
        str | None, _option("--routes", "Groups of routes that may be used: chat, responses, …", metavar="A,B|any")
    ] = None
    networks: Annotated[str | None, _option("--networks", "Networks that calls may come from.", metavar="A,B|any")] = (
        None
    )
    rpm: Annotated[str | None, _option("--rpm", "Requests a minute.", metavar="N|none")] = None
    rph: Annotated[str | None, _option("--rph", "Requests an hour.", metavar="N|none")] = None
    rpd: Annotated[str | None, _option("--rpd", "Requests a day.", metavar="N|none")] = None
    tpm: Annotated[str | None, _option("--tpm", "Tokens a minute.", metavar="N|none")] = None
    tph: Annotated[str | None, _option("--tph", "Tokens an hour.", metavar="N|none")] = None
    tpd: Annotated[str | None, _option("--tpd", "Tokens a day.", metavar="N|none")] = None
    parallel: Annotated[str | None, _option("--parallel", "Calls at one time.", metavar="N|none")] = None
    max_wait: Annotated[
        str | None,
        _option(
            "--max-wait-s",
            "How long a call over its limit may wait for its turn; 0 refuses it at once.",
            metavar="SECONDS|none",
        ),
    ] = None
    budget_usd: Annotated[
        list[str] | None,
        _option("--budget-usd", "Dollars by day, week, month, total; may be repeated.", metavar="5/day|none/day"),
    ] = None
    tag: Annotated[list[str] | None, _option("--tag", "A tag; may be repeated.", metavar="NAME=VALUE")] = None

    def __post_init__(self) -> None:
        self.members()

    def members(self) -> dict[str, Any]:
        """The members of a request; what was not said is not there. Raises BadParameter."""
        groups = {
            "grants": self._each(("models", "routes", "networks"), values.names),
            "limits": self._limits(),
            "budgets": dict(read_all("--budget-usd", values.budget, self.budget_usd)),
            "tags": dict(read_all("--tag", values.tag, self.tag)),
        }
        return {name: group for name, group in groups.items() if group}

    def _limits(self) -> dict[str, object]:
        counts = self._each(tuple(SHORT_NAMES), values.count)
        limits = {SHORT_NAMES[name]: value for name, value in counts.items()}
        if self.max_wait is not None:
            limits["max_wait_s"] = read("--max-wait-s", values.wait_s, self.max_wait)
        return limits

    def _each(self, options: tuple[str, ...], reader: Callable[[str], object]) -> dict[str, object]:
        given = {name: getattr(self, name) for name in options}
        return {name: read(f"--{name}", reader, text) for name, text in given.items() if text is not None}


@dataclass(frozen=True)
class Edits:
    """What an update changes besides terms."""

    name: Annotated[str | None, typer.Option("--name", help="A new name.", show_default=False)] = None
    untag: Annotated[
        list[str] | None, typer.Option("--untag", help="A tag to take off; may be repeated.", show_default=False)
    ] = None

    def members(self, terms: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
        """A merge patch of all that was said. Raises BadParameter where it is empty."""
        changes = {**said(name=self.name), **terms}
        for members in more:
            changes |= members
        if self.untag:
            changes["tags"] = {**changes.get("tags", {}), **dict.fromkeys(self.untag)}
        if not changes:
            raise NothingSaid("Nothing to change was said; see --help.")
        return changes


def said(**members: Any) -> dict[str, Any]:
    """The members that are not None."""
    return {name: value for name, value in members.items() if value is not None}


def expand(
    command: Callable[..., Any], run: Callable[[dict[str, Any]], None], *, given: str, added: dict[str, type[Any]]
) -> Callable[..., None]:
    """A command for typer that calls `run` with the arguments of `command`.

    Parameters that are dataclasses, and those of `added`, are options for each of their fields; `given` is a parameter
    that `run` adds by itself.
    """
    hints = get_type_hints(command, include_extras=True)
    own = [each for each in inspect.signature(command).parameters.values() if each.name != given]
    groups = {each.name: hints[each.name] for each in own if is_dataclass(hints[each.name])} | added
    plain = [
        each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for each in own
        if each.name not in groups
    ]

    def expanded(**arguments: Any) -> None:
        for name, group in groups.items():
            arguments[name] = group(**{field.name: arguments.pop(f"{name}_{field.name}") for field in fields(group)})
        run(arguments)

    parameters = [*plain, *(parameter for name, group in groups.items() for parameter in _parameters_of(name, group))]
    expanded.__name__, expanded.__doc__ = command.__name__, command.__doc__
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _parameters_of(name: str, group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        # Two groups may each have a `key`; the options have names of their own.
        inspect.Parameter(
            f"{name}_{field.name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]
