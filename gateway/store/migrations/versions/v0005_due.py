"""Responses in the background whose usage is not known yet."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "due_responses",
        sa.Column("response_id", sa.String(100), nullable=False),
        sa.Column("call_id", sa.String(100), nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("model", sa.String(200)),
        sa.Column("started_at", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("response_id", name="pk_due_responses"),
    )
    op.create_index("ix_due_responses_due_at", "due_responses", ["due_at"])


def downgrade() -> None:
    op.drop_table("due_responses")
