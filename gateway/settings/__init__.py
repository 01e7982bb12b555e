"""The settings: frozen data with units, defaults and bounds.

Knows what a valid setting is. Where settings come from (file, environment,
secret files) and how a bad one is reported is `gateway.configuration`.
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, SecretStr, model_validator

from gateway.settings.amounts import Alerts, Ledger, Limits, Prices, Reconcile
from gateway.settings.section import Section
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
    is_strong,
)
from gateway.settings.telemetry import Log, Metrics, Traces
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


class Server(Section):
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
        description="Largest multipart upload that streams through, in bytes.",
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
    keep_alive_s: float = Field(
        default=75.0,
        ge=1,
        le=86_400,
        allow_inf_nan=False,
        description="How long an idle client connection is kept open, in seconds, 1 at least.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        default=(), description="Networks of the proxies in front whose X-Forwarded-For is believed."
    )
    state_dir: FilePath = Field(
        default="data", description="Folder of what must outlive the process: the default database, and journals."
    )


class Upstream(Section):
    """The account that the team shares."""

    base_url: HttpUrl = Field(
        default="https://api.gmi-serving.com/v1",
        description="Base URL of the API, as an OpenAI SDK would take it.",
    )
    api_key: SecretHeaderValue | None = Field(default=None, description="The account's key; GMI_API_KEY sets it too.")
    api_key_file: FilePath | None = Field(
        default=None, description="File that holds the key; GMI_API_KEY_FILE sets it too."
    )
    simulator: bool = Field(
        default=False,
        description="Let a simulator answer in place of the models, also with a key, or where there was one before.",
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

    @property
    def is_simulated(self) -> bool:
        """Whether it is a simulator that answers."""
        return self.simulator or self.api_key is None


class Streams(Section):
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


class Models(Section):
    """Names of models."""

    aliases: dict[ModelName, ModelName] = Field(
        default_factory=dict, description="Alias to upstream's name, as in `gpt-5.2: openai/gpt-5.2`."
    )


class Key(Section):
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


class Access(Section):
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


class Admin(Section):
    """The API below /admin/v1, for teams and keys."""

    enabled: bool = Field(default=True, description="Whether there is one.")
    listen: ListenAddress | None = Field(
        default=None, description="host:port of its own; by default it is where the calls go."
    )
    key: StrongSecret | None = Field(
        default=None, description="An admin key, at least 16 characters; by default one is made at the first start."
    )
    key_file: FilePath | None = Field(default=None, description="File that holds the admin key.")


class Database(Section):
    """Where teams, keys, ownership and the audit log are kept."""

    url: DatabaseUrl | None = Field(
        default=None,
        repr=False,
        description="postgresql://user:password@host/name or sqlite:///path; by default gateway.db in state_dir.",
    )
    pool_size: int = Field(default=5, ge=1, le=100, description="Most connections of one process.")
    timeout_s: Seconds = Field(default=5.0, gt=0, description="Time for one query, in seconds.")


class Redis(Section):
    """What several nodes share while they run."""

    url: RedisUrl | None = Field(
        default=None, repr=False, description="redis://host:6379/0, or rediss:// for TLS; by default there is none."
    )


class Settings(Section):
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
