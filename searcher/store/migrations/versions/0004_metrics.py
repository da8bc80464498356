"""Permit results with any metrics: add task configurations, values and merits of trials, and learning curves of any
metrics. Add columns for the identity of a driver's process.

The studies of older revisions are image searches, whose results are a loss and an accuracy.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

RANKED = "state = 'COMPLETE' AND cites IS NULL"
STATES = "state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'INFEASIBLE', 'FAILED')"
FINISHED = "(state IN ('WAITING', 'RUNNING')) = (finish_order IS NULL)"
COMPLETE = "state <> 'COMPLETE' OR (value IS NOT NULL AND merit IS NOT NULL AND metrics IS NOT NULL)"
VALUE = "abs(value) <= 1e300 AND (merit = value OR merit = -value)"

LEADERBOARD = """
CREATE VIEW leaderboard AS
WITH result AS (
    SELECT study_id, task_config, key, MIN(number) AS first, COUNT(*) AS n_trials, AVG(value) AS value,
           AVG(merit) AS merit, AVG(tie_merit) AS tie_merit
    FROM searcher_trial
    WHERE state = 'COMPLETE' AND cites IS NULL
    GROUP BY study_id, task_config, key
)
SELECT
    study.name AS study,
    result.task_config,
    ROW_NUMBER() OVER (
        PARTITION BY study.id, result.task_config ORDER BY result.merit DESC, result.tie_merit DESC, result.first
    ) AS rank,
    trial.expression,
    trial.key,
    trial.kind,
    trial.name,
    result.n_trials,
    task.objective,
    result.value,
    trial.metrics,
    trial.state,
    trial.number
FROM result
JOIN searcher_study AS study ON study.id = result.study_id
JOIN searcher_task_config AS task ON task.study_id = result.study_id AND task.number = result.task_config
JOIN searcher_trial AS trial ON trial.study_id = result.study_id AND trial.number = result.first
"""

# As the image task declared itself, and its defaults, when this migration was written.
DECLARATION = {
    "metrics": [
        {"name": "train_loss", "direction": "minimize", "unit": "nats"},
        {"name": "val_loss", "direction": "minimize", "unit": "nats"},
        {"name": "val_acc", "direction": "maximize", "unit": "fraction"},
    ],
    "objective": "val_loss",
    "tie_breaker": "val_acc",
    "also_good": ["train_loss"],
    "steps": 0,
    "options": {},
    "digest": "",
}
DEFAULTS = {
    "dataset": "digits",
    "limit_train": 0,
    "limit_val": 0,
    "standardise": None,
    "split_seed": 0,
    "model": "resnet8",
    "width": 0,
    "model_kwargs": {},
    "match": "",
    "compile": False,
}
RECIPE_DEFAULTS = {
    "name": "quick",
    "epochs": 8,
    "steps": 0,
    "batch_size": 64,
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 5e-4,
    "schedule": "onecycle",
    "warmup": 0.25,
    "drops": [],
    "drop_factor": 0.1,
    "label_smoothing": 0.0,
    "clip_norm": 0.0,
    "crop": 0,
    "flip": False,
    "cutout": 0,
    "precision": "auto",
}


def upgrade() -> None:
    op.execute("DROP VIEW leaderboard")
    for column in (sa.Column("pid", sa.Integer), sa.Column("machine", sa.Text)):
        op.add_column("searcher_lease", column)
    for name, length in (("boot", 16), ("began", 32)):
        op.add_column("searcher_lease", sa.Column(name, sa.String(length)))
    _task_config()
    for index in ("key", "val_loss", "val_acc", "failed", "baseline"):
        op.drop_index(f"ix_searcher_trial_{index}", "searcher_trial")
    # SQLite writes the table of trials anew, which no other table may refer to meanwhile.
    op.execute("CREATE TABLE searcher_old_epoch AS SELECT * FROM searcher_epoch")
    op.drop_table("searcher_epoch")
    _trial()
    _point()
    op.drop_table("searcher_old_epoch")
    _study()
    _index("key", ["study_id", "key"], RANKED)
    _index(
        "merit",
        ["study_id", "task_config", sa.text("merit DESC"), sa.text("tie_merit DESC"), "number"],
        RANKED,
    )
    _index("failed", ["study_id", "number"], "state = 'FAILED'")
    _index("baseline", ["study_id", "name"], "kind = 'baseline'")
    op.execute(LEADERBOARD)


def _task_config() -> None:
    table = op.create_table(
        "searcher_task_config",
        sa.Column("study_id", sa.Integer, sa.ForeignKey("searcher_study.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(16), nullable=False),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("declaration", sa.JSON, nullable=False),
        sa.Column("objective", sa.String(100), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("tie_breaker", sa.String(100), nullable=False),
        sa.Column("data_digest", sa.String(200), nullable=False),
        sa.CheckConstraint("number >= 0", name="ck_searcher_task_config_number"),
        sa.CheckConstraint("direction IN ('minimize', 'maximize')", name="ck_searcher_task_config_direction"),
    )
    study = sa.table(
        "searcher_study",
        *(sa.column("id"), sa.column("objective"), sa.column("config", sa.JSON), sa.column("versions", sa.JSON)),
    )
    studies = op.get_bind().execute(sa.select(study)).mappings().all()
    op.bulk_insert(table, [_task_row(dict(row)) for row in studies])


def _task_row(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task configuration that an image search of an older revision had."""
    # Studies of versions without `standardise` took all whole numbers for pixels.
    settings = {"standardise": True, **(study["config"] if isinstance(study["config"], dict) else {})}
    parameters = {name: settings[name] for name, value in DEFAULTS.items() if settings.get(name, value) != value}
    recipe = settings.get("recipe")
    if isinstance(recipe, dict) and recipe != RECIPE_DEFAULTS:
        changed = {name: value for name, value in recipe.items() if RECIPE_DEFAULTS.get(name) != value}
        parameters["recipe"] = changed | {"name": recipe.get("name", "quick")}
    config = {"task": "images", "parameters": parameters, "primitives": settings.get("primitives", [])}
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    accuracy = study["objective"] == "val_acc"
    versions = study["versions"] if isinstance(study["versions"], dict) else {}
    return {
        "study_id": study["id"],
        "number": 0,
        "hash": hashlib.sha256(text.encode()).hexdigest()[:16],
        "config": config,
        "declaration": DECLARATION,
        "objective": study["objective"],
        "direction": "maximize" if accuracy else "minimize",
        "tie_breaker": "val_loss" if accuracy else "val_acc",
        "data_digest": versions.get("data", ""),
    }


def _point() -> None:
    op.create_table(
        "searcher_point",
        sa.Column("study_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["study_id", "number"], ["searcher_trial.study_id", "searcher_trial.number"]),
    )
    op.execute(
        f"""
        INSERT INTO searcher_point (study_id, number, step, metrics)
        SELECT study_id, number, epoch, {_object("train_loss", "val_loss", "val_acc")} FROM searcher_old_epoch
        """
    )


def _object(*names: str) -> str:
    """Return the SQL that makes a JSON object of columns, with all digits of each number."""
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        pairs = ", ".join(f"'{name}', {name}" for name in names)
        return f"json_build_object({pairs})"

    def to_json(*values: float | None) -> str:
        return json.dumps({name: value for name, value in zip(names, values, strict=True) if value is not None})

    function = f"searcher_{'_'.join(names)}"
    connection: Any = bind.connection.driver_connection  # SQLite's own json_object keeps 15 digits of 17
    connection.create_function(function, len(names), to_json, deterministic=True)
    return f"{function}({', '.join(names)})"


def _trial() -> None:
    op.add_column("searcher_trial", sa.Column("task_config", sa.Integer, nullable=False, server_default="0"))
    for name in ("value", "merit", "tie_merit"):
        op.add_column("searcher_trial", sa.Column(name, sa.Float))
    op.add_column("searcher_trial", sa.Column("metrics", sa.JSON))
    for objective, other, sign in (("val_loss", "val_acc", "-"), ("val_acc", "val_loss", "")):
        # Adding 0 makes a 0 of -0, which not every database keeps.
        op.execute(
            f"""
            UPDATE searcher_trial
            SET value = {objective}, merit = {sign}{objective} + 0.0, tie_merit = {"" if sign else "-"}{other} + 0.0,
                metrics = {_object("val_loss", "val_acc")}
            WHERE val_loss IS NOT NULL AND val_acc IS NOT NULL
              AND study_id IN (SELECT id FROM searcher_study WHERE objective = '{objective}')
            """
        )
    with op.batch_alter_table("searcher_trial", copy_from=_old_trial()) as batch:
        batch.drop_constraint("ck_searcher_trial_complete", type_="check")
        batch.drop_constraint("ck_searcher_trial_val_loss", type_="check")
        batch.drop_constraint("ck_searcher_trial_val_acc", type_="check")
        batch.drop_column("val_loss")
        batch.drop_column("val_acc")
        batch.create_check_constraint("ck_searcher_trial_complete", COMPLETE)
        batch.create_check_constraint("ck_searcher_trial_value", VALUE)
        batch.create_check_constraint("ck_searcher_trial_tie_merit", "abs(tie_merit) <= 1e300")


def _old_trial() -> sa.Table:
    """Return the table as it is now. SQLite changes a table by writing it anew."""
    return sa.Table(
        "searcher_trial",
        sa.MetaData(),
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
        sa.Column("task_config", sa.Integer, nullable=False, server_default="0"),
        sa.Column("value", sa.Float),
        sa.Column("merit", sa.Float),
        sa.Column("tie_merit", sa.Float),
        sa.Column("metrics", sa.JSON),
        sa.UniqueConstraint("study_id", "finish_order", name="uq_searcher_trial_finish_order"),
        sa.CheckConstraint("number >= 0", name="ck_searcher_trial_number"),
        sa.CheckConstraint("kind IN ('baseline', 'candidate')", name="ck_searcher_trial_kind"),
        sa.CheckConstraint(STATES, name="ck_searcher_trial_state"),
        sa.CheckConstraint(FINISHED, name="ck_searcher_trial_finished"),
        sa.CheckConstraint("true", name="ck_searcher_trial_complete"),
        sa.CheckConstraint("true", name="ck_searcher_trial_val_loss"),
        sa.CheckConstraint("true", name="ck_searcher_trial_val_acc"),
        sa.CheckConstraint("seconds >= 0 AND seconds <= 1e300", name="ck_searcher_trial_seconds"),
    )


def _study() -> None:
    op.execute(
        "ALTER TABLE searcher_study ADD COLUMN kind VARCHAR(16) DEFAULT 'search' NOT NULL "
        "CONSTRAINT ck_searcher_study_kind CHECK (kind IN ('search', 'design'))"
    )
    op.drop_column("searcher_study", "objective")


def _index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    condition = sa.text(where)
    op.create_index(
        f"ix_searcher_trial_{name}",
        "searcher_trial",
        columns,
        postgresql_where=condition,
        sqlite_where=condition,
    )
