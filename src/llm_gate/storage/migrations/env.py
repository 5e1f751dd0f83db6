"""Alembic runs this file for every command; the connection comes from migrate.py, with its lock and transaction."""

from alembic import context

from llm_gate.storage.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
