"""The ledger: what each call used, and its sums by day."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_USAGE = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
    "cache_write_tokens",
    "image_input_tokens",
    "image_output_tokens",
    "audio_ms",
)
_COUNTS = ("calls", "refused_calls", "failed_calls", "estimated_calls", "unknown_calls", "unpriced_calls")


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.String(100), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("method", sa.String(10), nullable=False),
        sa.Column("route", sa.String(100), nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("endpoint", sa.String(100)),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("error", sa.String(100)),
        sa.Column("upstream_error", sa.String(40)),
        sa.Column("upstream_request_id", sa.String(200)),
        sa.Column("usage_source", sa.String(10), nullable=False),
        sa.Column("cost_microusd", sa.BigInteger),
        sa.Column("queue_us", sa.BigInteger, nullable=False),
        sa.Column("overhead_us", sa.BigInteger),
        sa.Column("first_byte_us", sa.BigInteger),
        sa.Column("duration_us", sa.BigInteger, nullable=False),
        sa.Column("sent_bytes", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in _USAGE),
        sa.PrimaryKeyConstraint("id", name="pk_calls"),
    )
    op.create_index("ix_calls_started_at", "calls", ["started_at"])
    op.create_index("ix_calls_team_id_started_at", "calls", ["team_id", "started_at"])
    op.create_index("ix_calls_key_id_started_at", "calls", ["key_id", "started_at"])
    op.create_table(
        "call_tags",
        sa.Column("call_id", sa.String(100), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("call_id", "name", name="pk_call_tags"),
    )
    op.create_index("ix_call_tags_name_value_started_at", "call_tags", ["name", "value", "started_at"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("route", sa.String(100), nullable=False),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in (*_COUNTS, *_USAGE, "cost_microusd")),
        sa.PrimaryKeyConstraint("day", "team_id", "key_id", "model", "route", name="pk_usage_days"),
    )


def downgrade() -> None:
    for table in ("usage_days", "call_tags", "calls"):
        op.drop_table(table)
