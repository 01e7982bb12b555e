"""Grants, limits and budgets as JSON, in requests and replies alike.

Members that are null bind nothing. What is unknown is refused, so that a mistyped limit is not no limit.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.terms import MOST_WAIT_S

_MOST = 2**53 - 1
"""The largest integer that every JSON reader gets right (RFC 8259, section 6)."""

Count = Annotated[int, Field(ge=1, le=_MOST)]
WaitS = Annotated[int, Field(ge=0, le=MOST_WAIT_S)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
Names = Annotated[list[str], Field(fail_fast=True)]
"""As those below that fail fast: what is wrong a thousand times costs no more than what is wrong once."""
Tags = Annotated[dict[str, str], Field(max_length=32, fail_fast=True)]
ChangedTags = Annotated[dict[str, str | None], Field(fail_fast=True)]
UnixTime = Annotated[int, Field(ge=0, le=_MOST)]


class Strict(BaseModel):
    """JSON that means what it says: no unknown member, no text where a number is wanted."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Grants(Strict):
    """What may be used. Null stands for everything, an empty list for nothing."""

    models: Names | None = Field(
        default=None, description="Names of models, `*` for any run of characters.", examples=[["openai/*"]]
    )
    routes: Names | None = Field(
        default=None, description="Groups of routes, as the tags of this page name them.", examples=[["chat"]]
    )
    networks: Names | None = Field(
        default=None, description="Networks that calls may come from.", examples=[["10.0.0.0/8"]]
    )


class Limits(Strict):
    """How much in a time, and at once. Null stands for no limit."""

    requests_per_minute: Count | None = None
    requests_per_hour: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_minute: Count | None = None
    tokens_per_hour: Count | None = None
    tokens_per_day: Count | None = None
    parallel: Count | None = Field(default=None, description="Calls in flight at one time.")
    max_wait_s: WaitS | None = Field(
        default=None,
        description="How long a call over its limit may wait for its turn, in seconds; 0 refuses it at once. Null: as"
        " the team says, or else `limits.max_wait_s`. Not of single models.",
    )


ModelLimits = Annotated[dict[str, Limits], Field(fail_fast=True)]
ChangedModelLimits = Annotated[dict[str, Limits | None], Field(fail_fast=True)]


class Budgets(Strict):
    """Money to spend in a period, in micro-dollars: 1000000 is a dollar. Null stands for no bound.

    Calls of models without a price draw on no budget: see docs/prices.md, and `has_prices` of limits.
    """

    day_microusd: Count | None = None
    week_microusd: Count | None = None
    month_microusd: Count | None = None
    total_microusd: Count | None = Field(default=None, description="Over the whole life of the key or the team.")
