"""The settings of amounts: how much may be used, what it costs, what is kept of it and who is told."""

from typing import Annotated, Literal

from pydantic import Field

from gateway.settings.section import Section
from gateway.settings.shapes import FilePath, Seconds, StrongSecret, TimeZone, WebhookUrl
from gateway.terms import MOST_WAIT_S

ColumnName = Annotated[str, Field(min_length=1, max_length=100)]

LimitName = Literal[
    "requests_per_minute",
    "requests_per_hour",
    "requests_per_day",
    "tokens_per_minute",
    "tokens_per_hour",
    "tokens_per_day",
    "parallel",
]
Shadow = Literal[
    "key",
    "team",
    "model",
    "endpoint",
    "requests",
    "tokens",
    "parallel",
    "budget",
    "key/requests",
    "key/tokens",
    "key/parallel",
    "key/budget",
    "team/requests",
    "team/tokens",
    "team/parallel",
    "team/budget",
    "model/requests",
    "model/tokens",
    "model/parallel",
    "endpoint/requests",
    "endpoint/tokens",
    "endpoint/parallel",
]
"""Whose limits, of what, or both."""

LimitTable = dict[LimitName, Annotated[int, Field(ge=1, le=2**53 - 1)]]


class Limits(Section):
    """How much may be used, where a key or a team has no limits of its own. docs/limits.md says what is promised."""

    each_key: LimitTable = Field(
        default_factory=dict, description="Limits of every key that has none of that kind: `requests_per_minute: 60`."
    )
    each_team: LimitTable = Field(
        default_factory=dict, description="Limits of every team that has none of that kind: `parallel: 20`."
    )
    endpoint: LimitTable = Field(
        default_factory=dict, description="Limits of all calls together, which keep the account within its own."
    )
    # Of two bounds of a kind pydantic takes the type's, so a field has `Seconds` or bounds of its own.
    max_wait_s: float = Field(
        default=0.0,
        ge=0,
        le=MOST_WAIT_S,
        allow_inf_nan=False,
        description="How long a call over its limit may wait for its turn, in seconds, 600 at most; 0 refuses it at"
        " once.",
    )
    shadow: tuple[Shadow, ...] = Field(
        default=(),
        description="Limits that count and report but refuse nobody: `key`, `tokens`, `team/budget` and the like.",
    )
    unpriced: Literal["admit", "refuse"] = Field(
        default="admit",
        description="Calls under a budget of a model without a price: `admit`, and count tokens alone, or `refuse`.",
    )
    time_zone: TimeZone = Field(default="UTC", description="Where the days, weeks and months of budgets begin.")
    on_redis_failure: Literal["local", "closed", "open"] = Field(
        default="local",
        description="Redis is away: enforce this node's share (`local`), refuse calls (`closed`), or let all through.",
    )


class Prices(Section):
    """What calls cost."""

    file: FilePath | None = Field(
        default=None,
        description="YAML file of prices by model; by default prices.yaml beside the settings file.",
    )


class Ledger(Section):
    """Who used what, and what it cost. docs/usage.md says what is kept."""

    calls_retention_days: int = Field(
        default=90, ge=0, le=36_500, description="How long single calls are kept, in days; 0 for ever."
    )
    days_retention_days: int = Field(
        default=1096,
        ge=0,
        le=36_500,
        description="How long their sums by day are kept, in days, no less than the calls; 0 for ever.",
    )
    max_journal_bytes: Annotated[int, Field(ge=1024 * 1024)] = Field(
        default=1024 * 1024 * 1024,
        description="Most that may wait on the disk while the database is away, in bytes.",
    )
    ask_due_after_s: Seconds = Field(
        default=60.0,
        description="After how long the gateway asks how a response in the background ended that nobody asked for, in"
        " seconds; then at growing intervals, up to a day; 0 never.",
    )


class Reconcile(Section):
    """How a provider's account of usage is compared with the ledger. docs/usage.md shows it."""

    day_column: ColumnName = Field(default="date", description="Column with the day, or a time.")
    model_column: ColumnName = Field(default="model", description="Column with the model, as the ledger names it.")
    input_tokens_column: ColumnName | None = Field(
        default="input_tokens", description="Column with tokens of prompts; null: they are not compared."
    )
    output_tokens_column: ColumnName | None = Field(
        default="output_tokens", description="Column with tokens of answers; null: they are not compared."
    )
    cost_column: ColumnName | None = Field(
        default="cost_usd", description="Column with the cost in dollars; null: it is not compared."
    )
    tolerance_percent: float = Field(
        default=1, ge=0, le=1_000, allow_inf_nan=False, description="Drift that is no error, in percent."
    )


class Alerts(Section):
    """Who is told when 50, 80 and 100 % of a budget are spent."""

    webhook_url: WebhookUrl | None = Field(
        default=None, description="URL that gets a signed POST for each alert; by default nobody is told."
    )
    webhook_secret: StrongSecret | None = Field(
        default=None, description="What alerts are signed with, at least 16 characters."
    )
    webhook_secret_file: FilePath | None = Field(default=None, description="File that holds the secret.")
