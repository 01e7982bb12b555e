"""How the schema came about: one file a step below `versions`, run by Alembic."""
