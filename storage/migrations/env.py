"""Run by Alembic for `storage.database.upgrade`, which hands over a connection inside a write transaction."""

from __future__ import annotations

from alembic import context

from storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
)
# The caller's transaction holds every revision and the note of it: all of them happen, or none.
with context.begin_transaction():
    context.run_migrations()
