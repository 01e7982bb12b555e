"""The newest schema, made at once in a database that holds nothing.

The same as all migrations one after the other, which a test compares, without loading Alembic: that takes 9 MB, which a
gateway would keep for as long as it runs.
"""

from sqlalchemy import Connection, insert, inspect

from gateway.store.tables import metadata, revision

_REFUSAL = "'the audit log is append-only'"
_ABORT = f"BEGIN SELECT RAISE(ABORT, {_REFUSAL}); END"
_IS_THERE = "EXISTS (SELECT 1 FROM audit WHERE id = NEW.id)"
_REFUSE = f"$$ BEGIN RAISE EXCEPTION {_REFUSAL}; END $$"

_AUDIT = {
    "sqlite": (
        f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit {_ABORT}",
        f"CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit {_ABORT}",
        # INSERT OR REPLACE deletes without asking the trigger above.
        f"CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit WHEN {_IS_THERE} {_ABORT}",
    ),
    "postgresql": (
        f"CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS {_REFUSE}",
        (
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE ON audit"
            " FOR EACH ROW EXECUTE FUNCTION audit_refuse()"
        ),
        "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()",
    ),
}

_VERSION = (
    "CREATE TABLE alembic_version"
    " (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)
"""Where Alembic looks for what there is."""


def is_empty(connection: Connection) -> bool:
    """Whether there is no table, of the gateway's or of anybody's."""
    return not inspect(connection).get_table_names()


def create(connection: Connection, head: str) -> None:
    """Make all tables, as revision `head` leaves them, in the transaction that is open."""
    metadata.create_all(connection)
    connection.execute(insert(revision).values(id=1, value=0))
    for statement in (*_AUDIT[connection.dialect.name], _VERSION):
        connection.exec_driver_sql(statement)
    connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{head}')")  # noqa: S608 - a number of ours
