"""The tables. Migrations (`searcher/store/migrations`) create and change them; a test compares the two.

All names begin with `searcher_`, so that the database can be shared with other programs. The exception is the view
`leaderboard`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    column,
    text,
)
from sqlalchemy import table as sqltable

VERSION_TABLE = "searcher_version"
REVISIONS = ("0001", "0002", "0003", "0004", "0005")  # all migrations, oldest first
HEAD = REVISIONS[-1]

metadata = MetaData()

study = Table(
    "searcher_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("kind", String(16), nullable=False, server_default="search"),
    Column("n_trials", Integer, nullable=False),
    Column("config", JSON, nullable=False),
    Column("versions", JSON, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    CheckConstraint("kind IN ('search', 'design')", name="ck_searcher_study_kind"),
)

# One row for each task configuration; a search has one. `declaration` is the task's own description, with its metrics.
task_config = Table(
    "searcher_task_config",
    metadata,
    Column("study_id", Integer, ForeignKey("searcher_study.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("hash", String(16), nullable=False),
    Column("config", JSON, nullable=False),
    Column("declaration", JSON, nullable=False),
    Column("objective", String(100), nullable=False),
    Column("direction", String(16), nullable=False),
    Column("tie_breaker", String(100), nullable=False),
    Column("data_digest", String(200), nullable=False),
    CheckConstraint("number >= 0", name="ck_searcher_task_config_number"),
    CheckConstraint("direction IN ('minimize', 'maximize')", name="ck_searcher_task_config_direction"),
)

# One row for each study: the lease of its driver. `holder` describes the driver's process in words; `pid`, `machine`,
# `boot` and `began` identify it, so that another process on that machine can tell whether it has ended (see
# searcher/driver/process.py). `generation` counts the drivers. `acquired_at` and `expires_at` are seconds since 1970,
# by the database's clock. `serial` is the number of the last batch, and `writer` is the driver that wrote it: they tell
# whether a batch was written whose acknowledgement was lost. The driver of `stop_generation` was asked to stop.
lease = Table(
    "searcher_lease",
    metadata,
    Column("study_id", Integer, ForeignKey("searcher_study.id"), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("holder", Text, nullable=False),
    Column("pid", Integer),
    Column("machine", Text),
    Column("boot", String(16)),
    Column("began", String(32)),
    Column("expires_at", Float, nullable=False),
    Column("acquired_at", Float, nullable=False, server_default="0"),
    Column("serial", Integer, nullable=False, server_default="0"),
    Column("writer", Integer, nullable=False, server_default="0"),
    Column("stop_generation", Integer),
)

# `metrics` has all values of a result by name. `value` is the value of the objective, `merit` the same with the sign
# that makes greater better, `tie_merit` the tie-breaker's merit. The checks refuse NaN too: SQLite stores it as NULL,
# which a COMPLETE row may not have, and PostgreSQL orders it above all numbers.
trial = Table(
    "searcher_trial",
    metadata,
    Column("study_id", Integer, ForeignKey("searcher_study.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("name", String(64), nullable=False),
    Column("expression", Text, nullable=False),
    Column("key", String(32), nullable=False),
    Column("choices", Text),
    Column("seed", Integer, nullable=False),
    Column("task_config", Integer, nullable=False, server_default="0"),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("cites", Integer),
    Column("retries", Integer, nullable=False),
    Column("value", Float),
    Column("merit", Float),
    Column("tie_merit", Float),
    Column("metrics", JSON(none_as_null=True)),
    Column("parameters", Integer),
    Column("seconds", Float, nullable=False),
    Column("worker", Text, nullable=False),
    Column("finish_order", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("finished_at", DateTime(timezone=True)),
    UniqueConstraint("study_id", "finish_order", name="uq_searcher_trial_finish_order"),
    CheckConstraint("number >= 0", name="ck_searcher_trial_number"),
    CheckConstraint("kind IN ('baseline', 'candidate')", name="ck_searcher_trial_kind"),
    CheckConstraint(
        "state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'INFEASIBLE', 'FAILED')", name="ck_searcher_trial_state"
    ),
    CheckConstraint("(state IN ('WAITING', 'RUNNING')) = (finish_order IS NULL)", name="ck_searcher_trial_finished"),
    CheckConstraint(
        "state <> 'COMPLETE' OR (value IS NOT NULL AND merit IS NOT NULL AND metrics IS NOT NULL)",
        name="ck_searcher_trial_complete",
    ),
    CheckConstraint("abs(value) <= 1e300 AND (merit = value OR merit = -value)", name="ck_searcher_trial_value"),
    CheckConstraint("abs(tie_merit) <= 1e300", name="ck_searcher_trial_tie_merit"),
    CheckConstraint("seconds >= 0 AND seconds <= 1e300", name="ck_searcher_trial_seconds"),
)

# The conditions of partial indexes. Queries repeat them as literal text: with parameters in them, PostgreSQL could not
# use the index for a prepared statement.
RANKED = text("state = 'COMPLETE' AND cites IS NULL")
FAILED = text("state = 'FAILED'")
BASELINE = text("kind = 'baseline'")


def _index(name: str, condition: TextClause, *columns: ColumnElement[Any]) -> None:
    Index(f"ix_searcher_trial_{name}", *columns, postgresql_where=condition, sqlite_where=condition)


_c = trial.c
_index("key", RANKED, _c.study_id, _c.key)
_index("merit", RANKED, _c.study_id, _c.task_config, _c.merit.desc(), _c.tie_merit.desc(), _c.number)
_index("failed", FAILED, _c.study_id, _c.number)
_index("baseline", BASELINE, _c.study_id, _c.name)

# The number of a study's trials in each state. Every transaction that changes a trial's state updates these rows,
# because counting a million trials takes a tenth of a second.
tally = Table(
    "searcher_tally",
    metadata,
    Column("study_id", Integer, ForeignKey("searcher_study.id"), primary_key=True),
    Column("state", String(16), primary_key=True),
    Column("trials", Integer, nullable=False),
    CheckConstraint("trials >= 0", name="ck_searcher_tally_trials"),
)

# Learning curves: `metrics` has the values reported at a step, by name.
point = Table(
    "searcher_point",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("metrics", JSON, nullable=False),
    ForeignKeyConstraint(["study_id", "number"], ["searcher_trial.study_id", "searcher_trial.number"]),
)

# The learned parameters of the activations: one row for each site of a network and each parameter, in the order of
# `position`. `vector` has all values of a parameter, one for each channel, or is NULL if there are too many to keep.
learned = Table(
    "searcher_learned",
    metadata,
    Column("study_id", Integer, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("site", Text, nullable=False),
    Column("parameter", Text, nullable=False),
    Column("channels", Integer, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("mean", Float, nullable=False),
    Column("deviation", Float, nullable=False),
    Column("minimum", Float, nullable=False),
    Column("lower_quartile", Float, nullable=False),
    Column("median", Float, nullable=False),
    Column("upper_quartile", Float, nullable=False),
    Column("maximum", Float, nullable=False),
    Column("vector", JSON(none_as_null=True)),
    ForeignKeyConstraint(["study_id", "number"], ["searcher_trial.study_id", "searcher_trial.number"]),
)

# A view: the functions of each task configuration with their ranks. `value` is the mean over the trainings of a key;
# expression and metrics come from its first training.
leaderboard = sqltable(
    "leaderboard",
    column("study"),
    column("task_config"),
    column("rank"),
    column("expression"),
    column("key"),
    column("kind"),
    column("name"),
    column("n_trials"),
    column("objective"),
    column("value"),
    column("metrics", JSON),
    column("state"),
    column("number"),
)
