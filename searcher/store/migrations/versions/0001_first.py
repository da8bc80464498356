"""Create the tables of studies, leases, trials and learning curves, and the view of the leaderboard."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

FINISHED = "(state IN ('WAITING', 'RUNNING')) = (finish_order IS NULL)"
STATES = "state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'INFEASIBLE', 'FAILED')"
COMPLETE = "state <> 'COMPLETE' OR (val_loss IS NOT NULL AND val_acc IS NOT NULL)"

LEADERBOARD = """
CREATE VIEW leaderboard AS
WITH result AS (
    SELECT study_id, key, MIN(number) AS first, COUNT(*) AS n_trials, AVG(val_loss) AS val_loss, AVG(val_acc) AS val_acc
    FROM searcher_trial
    WHERE state = 'COMPLETE' AND cites IS NULL
    GROUP BY study_id, key
)
SELECT
    study.name AS study,
    ROW_NUMBER() OVER (
        PARTITION BY study.id
        ORDER BY CASE study.objective WHEN 'val_acc' THEN -result.val_acc ELSE result.val_loss END,
                 CASE study.objective WHEN 'val_acc' THEN result.val_loss ELSE -result.val_acc END,
                 result.first
    ) AS rank,
    trial.expression,
    trial.key,
    trial.kind,
    trial.name,
    result.n_trials,
    result.val_acc,
    result.val_loss,
    trial.state,
    trial.number
FROM result
JOIN searcher_study AS study ON study.id = result.study_id
JOIN searcher_trial AS trial ON trial.study_id = result.study_id AND trial.number = result.first
"""


def upgrade() -> None:
    _study()
    _lease()
    _trial()
    _epoch()
    op.execute(LEADERBOARD)


def _study() -> None:
    op.create_table(
        "searcher_study",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("n_trials", sa.Integer, nullable=False),
        sa.Column("objective", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )


def _lease() -> None:
    op.create_table(
        "searcher_lease",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("searcher_study.id"), primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Float, nullable=False),
    )


def _trial() -> None:
    op.create_table(
        "searcher_trial",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("searcher_study.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("expression", sa.Text, nullable=False),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("choices", sa.Text),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("cites", sa.Integer),
        sa.Column("retries", sa.Integer, nullable=False),
        sa.Column("val_loss", sa.Float),
        sa.Column("val_acc", sa.Float),
        sa.Column("parameters", sa.Integer),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("worker", sa.Text, nullable=False),
        sa.Column("finish_order", sa.Integer),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.UniqueConstraint("study_id", "finish_order", name="uq_searcher_trial_finish_order"),
        sa.CheckConstraint("number >= 0", name="ck_searcher_trial_number"),
        sa.CheckConstraint("kind IN ('baseline', 'candidate')", name="ck_searcher_trial_kind"),
        sa.CheckConstraint(STATES, name="ck_searcher_trial_state"),
        sa.CheckConstraint(FINISHED, name="ck_searcher_trial_finished"),
        sa.CheckConstraint(COMPLETE, name="ck_searcher_trial_complete"),
        sa.CheckConstraint("abs(val_loss) <= 1e300", name="ck_searcher_trial_val_loss"),
        sa.CheckConstraint("val_acc >= 0 AND val_acc <= 1", name="ck_searcher_trial_val_acc"),
        sa.CheckConstraint("seconds >= 0 AND seconds <= 1e300", name="ck_searcher_trial_seconds"),
        sa.Index("ix_searcher_trial_key", "study_id", "key"),
        sa.Index("ix_searcher_trial_state", "study_id", "state"),
    )


def _epoch() -> None:
    op.create_table(
        "searcher_epoch",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("train_loss", sa.Float, nullable=False),
        sa.Column("val_loss", sa.Float, nullable=False),
        sa.Column("val_acc", sa.Float, nullable=False),
        sa.ForeignKeyConstraint(["study_id", "number"], ["searcher_trial.study_id", "searcher_trial.number"]),
        sa.CheckConstraint("abs(train_loss) <= 1e300 AND abs(val_loss) <= 1e300", name="ck_searcher_epoch_loss"),
        sa.CheckConstraint("val_acc >= 0 AND val_acc <= 1", name="ck_searcher_epoch_val_acc"),
    )
