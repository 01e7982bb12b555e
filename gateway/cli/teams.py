"""`gmi-gateway teams`."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from gateway.cli import values
from gateway.cli.administering import Desk, administers, warn_of_prices
from gateway.cli.finding import team_named
from gateway.cli.options import Edits, Terms, read_all
from gateway.cli.printing import Record, budgets, limits, moment, terms_of

commands = typer.Typer(name="teams", help="Teams: groups of keys, with limits of their own.", no_args_is_help=True)

TeamArgument = Annotated[str, typer.Argument(metavar="TEAM", help="Name or id.", show_default=False)]


@dataclass(frozen=True)
class ModelLimits:
    """What models of a team are limited to."""

    model_limit: Annotated[
        list[str] | None,
        typer.Option(
            "--model-limit",
            metavar="MODEL:rpm=N,tpm=N|none",
            help="A limit of one model within the team; 'openai/*:none' lifts it. May be repeated.",
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        self.members()

    def members(self) -> dict[str, Any]:
        """The member of a request, if it was said. Raises BadParameter."""
        given = dict(read_all("--model-limit", values.model_limit, self.model_limit))
        return {"model_limits": given} if given else {}


@dataclass(frozen=True)
class Filters:
    """Which teams to list."""

    name: Annotated[str | None, typer.Option("--name", help="Part of the name.")] = None
    state: Annotated[str | None, typer.Option("--state", help="active or disabled.")] = None
    tag: Annotated[str | None, typer.Option("--tag", help="NAME or NAME=VALUE.")] = None
    sort: Annotated[str | None, typer.Option("--sort", help="Such as name or -created_at.")] = None


LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Most to show; all by default.")]


@commands.command("create")
@administers
async def create(
    desk: Desk,
    name: Annotated[str, typer.Option("--name", help="Its name.")],
    terms: Terms,
    model_limits: ModelLimits,
) -> None:
    """Make a team."""
    body = {"name": name, **terms.members(), **model_limits.members()}
    team = await desk.api.post("/teams", body)
    if terms.budget_usd:
        await warn_of_prices(desk, team)
    _show(desk, team)


@commands.command("list")
@administers
async def list_teams(desk: Desk, filters: Filters, limit: LimitOption = None) -> None:
    """List teams."""
    teams = await desk.api.listed("/teams", limit, **asdict(filters))
    if desk.printer.as_json:
        desk.printer.json(teams)
        return
    headings = ("id", "name", "state", "limits", "budgets", "made")
    binding = ("limits", "budgets")
    desk.printer.rows(headings, [_row(team) for team in teams], prose=binding, least=("made", *binding))


@commands.command("show")
@administers
async def show(desk: Desk, team: TeamArgument) -> None:
    """Show one team."""
    _show(desk, await desk.api.get(f"/teams/{await team_named(desk.api, team)}"))


@commands.command("update")
@administers
async def update(desk: Desk, team: TeamArgument, terms: Terms, edits: Edits, model_limits: ModelLimits) -> None:
    """Change what is said, and leave the rest. none and any lift what binds."""
    changes = edits.members(terms.members(), model_limits.members())
    changed = await desk.api.patch(f"/teams/{await team_named(desk.api, team)}", changes)
    if terms.budget_usd:
        await warn_of_prices(desk, changed)
    _show(desk, changed)


@commands.command("disable")
@administers
async def disable(desk: Desk, team: TeamArgument) -> None:
    """Stop all keys of a team."""
    _show(desk, await desk.api.post(f"/teams/{await team_named(desk.api, team)}/disable"))


@commands.command("enable")
@administers
async def enable(desk: Desk, team: TeamArgument) -> None:
    """Let them work again."""
    _show(desk, await desk.api.post(f"/teams/{await team_named(desk.api, team)}/enable"))


def _row(team: Record) -> tuple[str, ...]:
    return (
        team["id"],
        team["name"],
        team["state"],
        limits(team["limits"]),
        budgets(team["budgets"]),
        moment(team["created_at"]),
    )


def _show(desk: Desk, team: Record) -> None:
    if desk.printer.as_json:
        desk.printer.json(team)
        return
    model_limits = [(f"limits of {model}", limits(given)) for model, given in team["model_limits"].items()]
    desk.printer.facts(
        [
            ("id", team["id"]),
            ("name", team["name"]),
            ("state", team["state"]),
            ("declared by", team["source"]),
            *terms_of(team),
            *model_limits,
            ("made", moment(team["created_at"])),
            ("changed", moment(team["updated_at"])),
        ]
    )
