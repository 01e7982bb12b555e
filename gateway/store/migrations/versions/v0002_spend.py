"""What was spent of budgets, and the alerts about it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "spend",
        sa.Column("subject_id", sa.String(100), nullable=False),
        sa.Column("window_id", sa.String(40), nullable=False),
        sa.Column("microusd", sa.BigInteger, nullable=False),
        sa.Column("resets_at", sa.BigInteger),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject_id", "window_id", name="pk_spend"),
    )
    op.create_index("ix_spend_resets_at", "spend", ["resets_at"])
    op.create_table(
        "spend_batches",
        sa.Column("writer_id", sa.String(40), nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("writer_id", name="pk_spend_batches"),
    )
    op.create_index("ix_spend_batches_at", "spend_batches", ["at"])
    op.create_table(
        "alerts",
        sa.Column("subject_id", sa.String(100), nullable=False),
        sa.Column("window_id", sa.String(40), nullable=False),
        sa.Column("percent", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("due_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("subject_id", "window_id", "percent", name="pk_alerts"),
    )
    op.create_index("ix_alerts_created_at", "alerts", ["created_at"])
    op.create_index("ix_alerts_due_at", "alerts", ["due_at"])


def downgrade() -> None:
    for table in ("alerts", "spend_batches", "spend"):
        op.drop_table(table)
