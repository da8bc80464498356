"""Add the last batch of a study's driver, when it took the study, and whether it was asked to stop."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("searcher_lease", sa.Column("acquired_at", sa.Float(), nullable=False, server_default="0"))
    op.add_column("searcher_lease", sa.Column("serial", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("searcher_lease", sa.Column("writer", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("searcher_lease", sa.Column("stop_generation", sa.Integer()))
