"""Alembic's entry point. The caller hands over a connection that is already in a transaction."""

from alembic import context

from searcher.store.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
