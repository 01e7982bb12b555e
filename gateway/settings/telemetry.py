"""The settings of what can be seen from outside: metrics, traces, logs."""

from typing import Literal

from pydantic import Field

from gateway.settings.section import Section
from gateway.settings.shapes import FilePath, HttpUrl, ListenAddress, Name, StrongSecret


class Metrics(Section):
    """What Prometheus reads."""

    enabled: bool = Field(default=True, description="Whether there is a page of metrics, /metrics.")
    listen: ListenAddress | None = Field(
        default=None, description="host:port of its own; by default it is where the calls go."
    )
    token: StrongSecret | None = Field(
        default=None,
        description="Bearer token that it takes to read them, at least 16 characters; by default it takes none.",
    )
    token_file: FilePath | None = Field(default=None, description="File that holds the token.")


class Traces(Section):
    """Traces of calls, by OpenTelemetry; they take the extra `otel`."""

    endpoint: HttpUrl | None = Field(
        default=None, description="OTLP/HTTP URL of a collector: http://localhost:4318; by default there are no traces."
    )
    sample_ratio: float = Field(
        default=1.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of the traces that begin here which is kept, from 0 to 1; clients decide on theirs.",
    )
    service_name: Name = Field(default="gmi-gateway", description="What the gateway is called in traces.")


class Log(Section):
    """What is written to standard error."""

    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="`human`, `json`, or `auto`: human on a terminal, JSON elsewhere."
    )
    calls: Literal["off", "errors", "all"] = Field(default="errors", description="Which calls get a line.")
