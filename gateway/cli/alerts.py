"""`gmi-gateway alerts`: whether the webhook takes what it will be told of budgets."""

import time
from typing import Annotated

import typer

from gateway.cli.options import ConfigOption
from gateway.cli.printing import Printer

commands = typer.Typer(name="alerts", help="What a webhook is told of budgets.", no_args_is_help=True)


@commands.callback()
def group() -> None:
    """What a webhook is told of budgets."""


@commands.command("test")
def send_test_event(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.")] = False,
) -> None:
    """Send a signed test event to alerts.webhook_url, once, and say what it answered."""
    # It takes longer to import than a command has to say that it was mistyped.
    import asyncio  # noqa: PLC0415

    from gateway.cli.settings import load_or_exit  # noqa: PLC0415
    from gateway.limits.alerts import Webhook, send_test  # noqa: PLC0415

    alerts = load_or_exit(config, {}, code=2).settings.alerts
    if alerts.webhook_url is None or alerts.webhook_secret is None:
        typer.echo("There is no webhook. Set alerts.webhook_url and alerts.webhook_secret: docs/prices.md.", err=True)
        raise typer.Exit(1)
    webhook = Webhook(alerts.webhook_url.get_secret_value(), alerts.webhook_secret.get_secret_value())
    event_id, answer = asyncio.run(send_test(webhook, int(time.time())))
    printer, ms = Printer(as_json=as_json), round(answer.duration_s * 1000, 1)
    if as_json:
        printer.json({"id": event_id, "status": answer.status, "problem": answer.problem, "ms": ms})
    elif answer.problem is None:
        printer.line(f"The webhook has taken {event_id}: status {answer.status} after {ms} ms.")
    else:
        typer.echo(f"The webhook has not taken {event_id}: {answer.problem} after {ms} ms.", err=True)
    if answer.problem is not None:
        raise typer.Exit(1)
