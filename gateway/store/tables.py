"""The tables, as the newest migration leaves them.

Times are integer Unix seconds, those of calls microseconds; JSON columns hold what `gateway.terms` describes. Secrets
are there as SHA-256 alone.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    false,
)
from sqlalchemy.dialects.sqlite import INTEGER

from gateway.call import Usage

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Number = BigInteger().with_variant(INTEGER(), "sqlite")
"""SQLite counts a primary key up only if it is an INTEGER."""


def _terms() -> tuple[Column[object], ...]:
    return (
        Column("state", String(16), nullable=False),
        Column("source", String(16), nullable=False),
        Column("version", Integer, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
        Column("grants", JSON, nullable=False),
        Column("limits", JSON, nullable=False),
        Column("budgets", JSON, nullable=False),
        Column("tags", JSON, nullable=False),
    )


teams = Table(
    "teams",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("model_limits", JSON, nullable=False),
    *_terms(),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("team_id", ForeignKey("teams.id"), nullable=False, index=True),
    Column("name", String(100), nullable=False),
    Column("owner", String(200)),
    Column("role", String(16), nullable=False),
    Column("hint", String(8), nullable=False),
    Column("expires_at", BigInteger),
    Column("last_used_at", BigInteger),
    Column("rotated_at", BigInteger),
    *_terms(),
)
Index(
    "uq_keys_team_id_name",
    keys.c.team_id,
    keys.c.name,
    unique=True,
    sqlite_where=keys.c.state != "revoked",
    postgresql_where=keys.c.state != "revoked",
)
"""The name of a revoked key is free again."""

secrets = Table(
    "secrets",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("key_id", ForeignKey("keys.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", BigInteger, nullable=False),
    Column("valid_until", BigInteger),
    Column("is_imported", Boolean, nullable=False, server_default=false()),
)
"""SHA-256 of each secret that works; `valid_until` is None for a key's newest. Imported ones may have any form."""

changes = Table(
    "changes",
    metadata,
    Column("revision", _Number, primary_key=True),
    Column("team_id", String(40)),
    Column("key_id", String(40)),
    Column("at", BigInteger, nullable=False),
)
"""What changed, for other nodes: one key, or a team (`key_id` None) and so all of its keys."""

revision = Table(
    "revision", metadata, Column("id", Integer, primary_key=True), Column("value", BigInteger, nullable=False)
)
"""One row, raised in the transaction of each change, which makes changes visible in the order of their numbers."""

audit = Table(
    "audit",
    metadata,
    Column("id", _Number, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(40), nullable=False),
    Column("action", String(40), nullable=False),
    Column("object_id", String(40), nullable=False, index=True),
    Column("team_id", String(40), index=True),
    Column("before", JSON(none_as_null=True)),
    Column("after", JSON(none_as_null=True)),
    Column("address", String(64)),
)
"""Append-only: triggers refuse UPDATE and DELETE."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("actor", String(40), primary_key=True),
    Column("idempotency_key", String(255), primary_key=True),
    Column("request_sha256", LargeBinary(32), nullable=False),
    Column("object_id", String(40), nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)
"""Which object a create with this Idempotency-Key made."""

owners = Table(
    "owners",
    metadata,
    Column("object_id", String(256), primary_key=True),
    Column("team_id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Index("ix_owners_team_id_created_at", "team_id", "created_at"),
)
"""Whose an object upstream is."""

spend = Table(
    "spend",
    metadata,
    Column("subject_id", String(100), primary_key=True),
    Column("window_id", String(40), primary_key=True),
    Column("microusd", BigInteger, nullable=False),
    Column("resets_at", BigInteger, index=True),
    Column("updated_at", BigInteger, nullable=False),
)
"""What a key or a team with a budget has spent in one of its windows, which ends at `resets_at` (None: never)."""

spend_batches = Table(
    "spend_batches",
    metadata,
    Column("writer_id", String(40), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False, index=True),
)
"""The last batch that each process added to `spend`, so that none is added twice."""

alerts = Table(
    "alerts",
    metadata,
    Column("subject_id", String(100), primary_key=True),
    Column("window_id", String(40), primary_key=True),
    Column("percent", Integer, primary_key=True, autoincrement=False),
    Column("event", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
    Column("due_at", BigInteger, index=True),
)
"""Parts of budgets that were reached, once a window. `due_at` is when to send it; None: sent, or given up."""

USAGE = Usage.__struct_fields__
"""What calls use, by kind: columns of `calls` and of `usage_days`."""

calls = Table(
    "calls",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("started_at", BigInteger, nullable=False, index=True),
    Column("team_id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("method", String(10), nullable=False),
    Column("route", String(100), nullable=False),
    Column("model", String(200)),
    Column("endpoint", String(100)),
    Column("status", Integer, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("error", String(100)),
    Column("upstream_error", String(40)),
    Column("upstream_request_id", String(200)),
    Column("usage_source", String(10), nullable=False),
    Column("cost_microusd", BigInteger),
    Column("queue_us", BigInteger, nullable=False),
    Column("overhead_us", BigInteger),
    Column("first_byte_us", BigInteger),
    Column("duration_us", BigInteger, nullable=False),
    Column("sent_bytes", BigInteger, nullable=False),
    *(Column(name, BigInteger) for name in USAGE),
    Index("ix_calls_team_id_started_at", "team_id", "started_at"),
    Index("ix_calls_key_id_started_at", "key_id", "started_at"),
)
"""The ledger: a row a call. Usage is null where it is unknown; the cost, where that or the price is.

`error` of a call over a limit names that too: `gateway.metering.refused_by` knows how.
"""

call_tags = Table(
    "call_tags",
    metadata,
    Column("call_id", String(100), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", String(200), nullable=False),
    Column("started_at", BigInteger, nullable=False),
    Index("ix_call_tags_name_value_started_at", "name", "value", "started_at"),
)
"""What clients want their calls to be found under."""

due_responses = Table(
    "due_responses",
    metadata,
    Column("response_id", String(100), primary_key=True),
    Column("call_id", String(100), nullable=False),
    Column("team_id", String(40), nullable=False),
    Column("key_id", String(40), nullable=False),
    Column("model", String(200)),
    Column("started_at", BigInteger, nullable=False),
    Column("reserved", JSON, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False, index=True),
)
"""Responses in the background whose usage is not known yet, and when upstream is asked for it next. `reserved` is what
their calls did, by the ids of rules. Times are microseconds."""

COUNTS = ("calls", "refused_calls", "failed_calls", "estimated_calls", "unknown_calls", "unpriced_calls")

usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("team_id", String(40), primary_key=True),
    Column("key_id", String(40), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("route", String(100), primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in (*COUNTS, *USAGE, "cost_microusd")),
)
"""Sums of `calls`, added to in the same transaction. `day` counts from 1970-01-01, in the time zone of the settings;
`model` is "" for calls without one."""
