"""Teams, keys and their secrets; changes and their count; the audit log; idempotent creates; whose an object is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.sqlite import INTEGER

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(INTEGER(), "sqlite")

_REFUSAL = "'the audit log is append-only'"
_ABORT = f"BEGIN SELECT RAISE(ABORT, {_REFUSAL}); END"
_IS_THERE = "EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"

_AUDIT_ON_SQLITE = (
    f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit {_ABORT}",
    f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit {_ABORT}",
    # INSERT OR REPLACE deletes without asking the trigger above.
    f"CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN {_IS_THERE} {_ABORT}",
)

_REFUSE = f"$$ BEGIN RAISE EXCEPTION {_REFUSAL}; END $$"

_AUDIT_ON_POSTGRESQL = (
    f"CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS {_REFUSE}",
    "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_refuse()",
    "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
)


def upgrade() -> None:
    _create_teams_and_keys()
    _create_changes()
    _create_audit()
    _create_idempotency()
    _create_owners()


def downgrade() -> None:
    for table in ("owners", "idempotency", "audit", "revision", "changes", "secrets", "keys", "teams"):
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION audit_refuse()")


def _create_teams_and_keys() -> None:
    op.create_table(
        "teams",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("model_limits", sa.JSON, nullable=False),
        *_terms(),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("owner", sa.String(200)),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("hint", sa.String(8), nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("last_used_at", sa.BigInteger),
        sa.Column("rotated_at", sa.BigInteger),
        *_terms(),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name="fk_keys_team_id"),
    )
    op.create_index("ix_keys_team_id", "keys", ["team_id"])
    living = sa.text("state != 'revoked'")
    op.create_index(
        "uq_keys_team_id_name",
        "keys",
        ["team_id", "name"],
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    op.create_table(
        "secrets",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("valid_until", sa.BigInteger),
        sa.PrimaryKeyConstraint("digest", name="pk_secrets"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_secrets_key_id", ondelete="CASCADE"),
    )
    op.create_index("ix_secrets_key_id", "secrets", ["key_id"])


def _terms() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("grants", sa.JSON, nullable=False),
        sa.Column("limits", sa.JSON, nullable=False),
        sa.Column("budgets", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
    )


def _create_changes() -> None:
    op.create_table(
        "changes",
        sa.Column("revision", _NUMBER, nullable=False),
        sa.Column("team_id", sa.String(40)),
        sa.Column("key_id", sa.String(40)),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_changes"),
    )
    count = op.create_table(
        "revision",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revision"),
    )
    op.bulk_insert(count, [{"id": 1, "value": 0}])


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _NUMBER, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.String(40), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("object_id", sa.String(40), nullable=False),
        sa.Column("team_id", sa.String(40)),
        sa.Column("before", sa.JSON),
        sa.Column("after", sa.JSON),
        sa.Column("address", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_object_id", "audit", ["object_id"])
    op.create_index("ix_audit_team_id", "audit", ["team_id"])
    on_sqlite = op.get_context().dialect.name == "sqlite"
    for statement in _AUDIT_ON_SQLITE if on_sqlite else _AUDIT_ON_POSTGRESQL:
        op.execute(statement)


def _create_idempotency() -> None:
    op.create_table(
        "idempotency",
        sa.Column("actor", sa.String(40), nullable=False),
        sa.Column("idempotency_key", sa.String(255), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("object_id", sa.String(40), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("actor", "idempotency_key", name="pk_idempotency"),
    )
    op.create_index("ix_idempotency_at", "idempotency", ["at"])


def _create_owners() -> None:
    op.create_table(
        "owners",
        sa.Column("object_id", sa.String(256), nullable=False),
        sa.Column("team_id", sa.String(40), nullable=False),
        sa.Column("key_id", sa.String(40), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("object_id", name="pk_owners"),
    )
    op.create_index("ix_owners_team_id_created_at", "owners", ["team_id", "created_at"])
