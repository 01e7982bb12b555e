"""What Alembic runs to apply steps: on the connection, and in the transaction, that `gateway.store.migrate` holds."""

from alembic import context

from gateway.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite alters a table by making it anew.
    render_as_batch=True,
)
context.run_migrations()
