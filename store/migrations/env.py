"""Where Alembic meets our database. `store.database` calls it; there is no alembic.ini, no logging set-up."""

from alembic import context
from sqlmodel import SQLModel

import store.tables  # noqa: F401 - fills the metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    compare_type=True,
    compare_server_default=True,
)
context.run_migrations()  # in the caller's transaction
