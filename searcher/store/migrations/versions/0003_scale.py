"""Prepare for a million trials: add tallies of the states, and small indexes for the ranking."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

RANKED = "state = 'COMPLETE' AND cites IS NULL"

FILL = """
INSERT INTO searcher_tally (study_id, state, trials)
SELECT study.id, kind.state, COUNT(trial.number)
FROM searcher_study AS study
CROSS JOIN (
    SELECT 'WAITING' AS state UNION ALL SELECT 'RUNNING' UNION ALL SELECT 'COMPLETE' UNION ALL SELECT 'PRUNED'
    UNION ALL SELECT 'INFEASIBLE' UNION ALL SELECT 'FAILED'
) AS kind
LEFT JOIN searcher_trial AS trial ON trial.study_id = study.id AND trial.state = kind.state
GROUP BY study.id, kind.state
"""


def upgrade() -> None:
    _tally()
    op.drop_index("ix_searcher_trial_key", "searcher_trial")
    op.drop_index("ix_searcher_trial_state", "searcher_trial")
    _index("key", ["study_id", "key"], RANKED)
    _index("val_loss", ["study_id", "val_loss", sa.text("val_acc DESC"), "number"], RANKED)
    _index("val_acc", ["study_id", sa.text("val_acc DESC"), "val_loss", "number"], RANKED)
    _index("failed", ["study_id", "number"], "state = 'FAILED'")
    _index("baseline", ["study_id", "name"], "kind = 'baseline'")


def _tally() -> None:
    op.create_table(
        "searcher_tally",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("searcher_study.id"), primary_key=True),
        sa.Column("state", sa.String(16), primary_key=True),
        sa.Column("trials", sa.Integer, nullable=False),
        sa.CheckConstraint("trials >= 0", name="ck_searcher_tally_trials"),
    )
    op.execute(FILL)


def _index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        f"ix_searcher_trial_{name}",
        "searcher_trial",
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
    )
