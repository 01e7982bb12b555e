"""The settings: frozen data with units, defaults and bounds.

Knows what a valid setting is. Where settings come from (file, environment,
secret files) and how a bad one is reported is `gateway.configuration`.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, model_validator

from gateway.settings.shapes import (
    Bytes,
    DatabaseUrl,
    FilePath,
    HeaderValue,
    Host,
    HttpUrl,
    ListenAddress,
    ModelName,
    Name,
    Network,
    ProxyUrl,
    RedisUrl,
    Seconds,
    SecretHeaderValue,
    Sha256,
    StrongSecret,
    TimeZone,
    WebhookUrl,
    is_strong,
)
from gateway.terms import Role

RouteGroup = Literal[
    "chat",
    "responses",
    "conversations",
    "models",
    "embeddings",
    "completions",
    "moderations",
    "images",
    "audio",
    "files",
    "uploads",
    "batches",
    "vector_stores",
]
"""The groups of the table of mirrored routes, which lives on a higher floor; a test holds the two together."""


ColumnName = Annotated[str, Field(min_length=1, max_length=100)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Server(_Section):
    """The side that clients see."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes that share the port.")
    drain_delay_s: Seconds = Field(
        default=0.0,
        description="How long to go on listening after SIGTERM, not ready any more, for balancers that poll "
        "readiness, in seconds.",
    )
    drain_s: Seconds = Field(default=30.0, description="How long open calls may go on after that, in seconds.")
    max_body_bytes: Bytes = Field(
        default=64 * 1024 * 1024, description="Largest request body, sent or decoded, in bytes."
    )
    max_upload_bytes: Bytes = Field(
        default=512 * 1024 * 1024,
        description="Largest multipart upload, which streams through unheld, in bytes.",
    )
    max_head_bytes: Annotated[int, Field(ge=1024, le=1024 * 1024)] = Field(
        default=64 * 1024, description="Largest request head (request line and headers), in bytes."
    )
    max_headers: Annotated[int, Field(ge=8, le=10_000)] = Field(
        default=100, description="Most header fields of a request."
    )
    max_url_bytes: Annotated[int, Field(ge=256, le=64 * 1024)] = Field(
        default=8 * 1024, description="Longest request target (path and query), in bytes."
    )
    request_timeout_s: Seconds = Field(
        default=60.0,
        description="Time a client has to send a whole request, in seconds, and one more for each 64 KiB sent; "
        "0 for no limit.",
    )
    send_timeout_s: Seconds = Field(
        default=300.0,
        description="Time after which a client that takes nothing of its reply is dropped, in seconds; 0 for no limit.",
    )
    keep_alive_s: Seconds = Field(
        default=75.0, ge=1, description="How long an idle client connection is kept open, in seconds."
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Networks of the proxies in front whose X-Forwarded-For is believed."
    )
    state_dir: FilePath = Field(
        default="data", description="Folder of what must outlive the process: the default database, and journals."
    )


class Upstream(_Section):
    """The account that the team shares."""

    base_url: HttpUrl = Field(
        default="https://api.gmi-serving.com/v1",
        description="Base URL of the API, as an OpenAI SDK would take it.",
    )
    api_key: SecretHeaderValue | None = Field(default=None, description="The account's key; GMI_API_KEY sets it too.")
    api_key_file: FilePath | None = Field(
        default=None, description="File that holds the key; GMI_API_KEY_FILE sets it too."
    )
    organization_id: HeaderValue | None = Field(
        default=None, description="Sent as X-Organization-ID, for accounts with several organisations."
    )
    transport: Literal["auto", "native", "httpx2"] = Field(
        default="auto",
        description="What carries calls: `auto` takes `native`, or `httpx2` where a proxy is set.",
    )
    proxy: ProxyUrl | None = Field(
        default=None,
        repr=False,
        description="URL of an outbound HTTP proxy; it may hold a user and a password.",
    )
    ca_file: FilePath | None = Field(
        default=None, description="PEM file of the certificate authorities to trust instead of the system's."
    )
    max_connections: int = Field(
        default=10_000, ge=1, description="Most connections to upstream, one a call in flight."
    )
    connect_timeout_s: Seconds = Field(
        default=10.0, description="Time to connect, TLS included, in seconds; 0 for no limit."
    )
    first_byte_timeout_s: Seconds = Field(
        default=600.0,
        description="From the request's last byte to the reply body's first, in seconds; 0 for no limit.",
    )
    idle_timeout_s: Seconds = Field(
        default=300.0, description="Time between two pieces of a reply, in seconds; 0 for no limit."
    )
    total_timeout_s: Seconds = Field(
        default=3600.0, description="Time that one call may take, in seconds; 0 for no limit."
    )
    on_client_disconnect: Literal["cancel", "drain"] = Field(
        default="cancel", description="A client left: `cancel` its call upstream, or `drain` it to the end."
    )


class Streams(_Section):
    """Event streams."""

    keepalive_s: Seconds = Field(
        default=0.0,
        description="Send a comment on a stream that was idle this long, in seconds; 0 sends none.",
    )
    max_event_bytes: Bytes = Field(
        default=8 * 1024 * 1024,
        description="Largest event that is held until complete, in bytes; a larger one passes in pieces.",
    )
    include_usage: bool = Field(
        default=True,
        description="Ask upstream for the usage of chat streams whose client did not, and take it out again.",
    )


class Models(_Section):
    """Names of models."""

    aliases: dict[ModelName, ModelName] = Field(
        default_factory=dict, description="Alias to upstream's name, as in `gpt-5.2: openai/gpt-5.2`."
    )


class Key(_Section):
    """A virtual key: what one person or job puts in place of the account's key."""

    name: Name = Field(description="Whose key it is; shown in logs.")
    team: Name = Field(description="The team it belongs to; shown in logs and metrics.")
    role: Role = Field(
        default="member", description="`member`, `team_admin` (runs its team) or `admin` (runs the gateway)."
    )
    secret: SecretStr | None = Field(
        default=None,
        description="The key itself, at least 16 characters; write `${NAME}` to read the environment.",
    )
    secret_sha256: Sha256 | None = Field(
        default=None,
        description="In place of `secret`, its SHA-256 in hex, so that the file holds no secret.",
    )
    models: tuple[ModelName, ...] | None = Field(
        default=None, description="Models it may use, with `*` as wildcard; all by default."
    )
    routes: tuple[RouteGroup, ...] | None = Field(
        default=None, description="Groups of routes it may use, such as `chat`; all by default."
    )
    networks: tuple[Network, ...] | None = Field(
        default=None, description="Networks its calls may come from; any by default."
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When it stops working, with an offset: `2027-01-31T18:00:00Z`; never by default."
    )

    @model_validator(mode="after")
    def _exactly_one_secret(self) -> "Key":
        if (self.secret is None) == (self.secret_sha256 is None):
            raise ValueError("must have either secret or secret_sha256, and not both")
        if self.secret is not None and not is_strong(self.secret.get_secret_value()):
            raise ValueError(
                "its secret must be 16 or more visible ASCII characters; make one with: openssl rand -hex 24"
            )
        return self


class Access(_Section):
    """Who sees what on the shared account."""

    share_within_team: bool = Field(
        default=True,
        description="Stored responses, files and the like belong to a team; false: to the key that made them.",
    )
    namespace_keys: bool = Field(
        default=True,
        description="Keep teams' Idempotency-Key and prompt_cache_key apart upstream, by a keyed hash.",
    )
    tags_from_body: bool = Field(
        default=False,
        description="Tag calls with metadata and user of their bodies too, beside x-gateway-tags and their key's tags.",
    )


class Admin(_Section):
    """The API below /admin/v1, for teams and keys."""

    enabled: bool = Field(default=True, description="Whether there is one.")
    listen: ListenAddress | None = Field(
        default=None, description="host:port of its own; by default it is where the calls go."
    )
    key: StrongSecret | None = Field(
        default=None, description="An admin key, at least 16 characters; by default one is made at the first start."
    )
    key_file: FilePath | None = Field(default=None, description="File that holds the admin key.")


class Database(_Section):
    """Where teams, keys, ownership and the audit log are kept."""

    url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="postgresql://user:password@host/name or sqlite:///path; by default gateway.db in state_dir.",
    )
    pool_size: int = Field(default=5, ge=1, le=100, description="Most connections of one process.")
    timeout_s: Seconds = Field(default=5.0, gt=0, description="Time for one query, in seconds.")


class Redis(_Section):
    """What several nodes share while they run."""

    url: RedisUrl | None = Field(
        default=None, repr=False, description="redis://host:6379/0, or rediss:// for TLS; by default there is none."
    )


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

LimitTable = dict[LimitName, Annotated[int, Field(ge=1, lt=2**53)]]


class Limits(_Section):
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
    max_wait_s: Seconds = Field(
        default=0.0,
        le=600,
        description="How long a call over its limit may wait for its turn, in seconds; 0 refuses it at once.",
    )
    shadow: tuple[Shadow, ...] = Field(
        default=(),
        description="Limits that count and report but refuse nobody: `key`, `tokens`, `team/budget` and the like.",
    )
    time_zone: TimeZone = Field(default="UTC", description="Where the days, weeks and months of budgets begin.")
    on_redis_failure: Literal["local", "closed", "open"] = Field(
        default="local",
        description="Redis is away: enforce this node's share (`local`), refuse calls (`closed`), or let all through.",
    )


class Prices(_Section):
    """What calls cost."""

    file: FilePath | None = Field(
        default=None, description="YAML file of prices by model; by default config/prices.yaml if it is there."
    )


class Ledger(_Section):
    """Who used what, and what it cost. docs/usage.md says what is kept."""

    calls_retention_days: int = Field(
        default=90, ge=0, le=36_500, description="How long single calls are kept, in days; 0 for ever."
    )
    days_retention_days: int = Field(
        default=1096, ge=0, le=36_500, description="How long their sums by day are kept, in days; 0 for ever."
    )
    max_journal_bytes: Annotated[int, Field(ge=1024 * 1024)] = Field(
        default=1024 * 1024 * 1024,
        description="Most that may wait on the disk while the database is away, in bytes.",
    )


class Reconcile(_Section):
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


class Alerts(_Section):
    """Who is told when 50, 80 and 100 % of a budget are spent."""

    webhook_url: WebhookUrl | None = Field(
        default=None, description="URL that gets a signed POST for each alert; by default nobody is told."
    )
    webhook_secret: StrongSecret | None = Field(
        default=None, description="What alerts are signed with, at least 16 characters."
    )
    webhook_secret_file: FilePath | None = Field(default=None, description="File that holds the secret.")


class Metrics(_Section):
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


class Traces(_Section):
    """Traces of calls, by OpenTelemetry; they take the extra, `pip install gmi-gateway[otel]`."""

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


class Log(_Section):
    """What is written to standard error."""

    format: Literal["auto", "human", "json"] = Field(
        default="auto", description="`human`, `json`, or `auto`: human on a terminal, JSON elsewhere."
    )
    calls: Literal["off", "errors", "all"] = Field(default="errors", description="Which calls get a line.")


class Settings(_Section):
    """All of it."""

    server: Server = Field(default_factory=Server)
    upstream: Upstream = Field(default_factory=Upstream)
    streams: Streams = Field(default_factory=Streams)
    models: Models = Field(default_factory=Models)
    keys: tuple[Key, ...] = Field(default=(), description="Virtual keys.")
    access: Access = Field(default_factory=Access)
    admin: Admin = Field(default_factory=Admin)
    database: Database = Field(default_factory=Database)
    redis: Redis = Field(default_factory=Redis)
    limits: Limits = Field(default_factory=Limits)
    prices: Prices = Field(default_factory=Prices)
    ledger: Ledger = Field(default_factory=Ledger)
    reconcile: Reconcile = Field(default_factory=Reconcile)
    alerts: Alerts = Field(default_factory=Alerts)
    metrics: Metrics = Field(default_factory=Metrics)
    traces: Traces = Field(default_factory=Traces)
    log: Log = Field(default_factory=Log)


SECTIONS = tuple(name for name in Settings.model_fields if name != "keys")
"""The settings that are tables of keys; `keys`, the list of virtual keys, is not."""
