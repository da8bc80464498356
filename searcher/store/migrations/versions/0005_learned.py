"""Add the learned parameters of the activations."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

STATISTICS = ("mean", "deviation", "minimum", "lower_quartile", "median", "upper_quartile", "maximum")


def upgrade() -> None:
    op.create_table(
        "searcher_learned",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("site", sa.Text, nullable=False),
        sa.Column("parameter", sa.Text, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        *(sa.Column(name, sa.Float, nullable=False) for name in STATISTICS),
        sa.Column("vector", sa.JSON),
        sa.ForeignKeyConstraint(["study_id", "number"], ["searcher_trial.study_id", "searcher_trial.number"]),
    )
