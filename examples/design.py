"""A design: a fixed list of trainings, here to see whether a difference to ReLU is more than chance.

    python examples/design.py

Two stages: three functions with three seeds each on a small network, then the same on a wider one. Kill it and run it
again: it goes on where it was, and no training is done twice.
"""

from searcher.driver import leases, session
from searcher.driver.session import make_pool
from searcher.proposers import Design, Stage
from searcher.settings.config import Config
from searcher.settings.plan import study_task
from searcher.store.store import Store, StudyExists
from workers.tasks.images.config import DECLARATION, Recipe

NAME = "relu-or-not"
FUNCTIONS = ("max(x, 0)", "x * sigmoid(x)", "x * tanh(x)")
SEEDS = (101, 102, 103)
RECIPE = Recipe(epochs=2)


def main(storage: str = "sqlite:///searcher.db") -> None:
    small = Config.of(study_name=NAME, pool="inline", limit_train=300, recipe=RECIPE, objective="val_acc")
    wide = Config.of(width=16, limit_train=300, recipe=RECIPE, objective="val_acc")
    tasks = [study_task(settings, DECLARATION, number=n) for n, settings in enumerate((small, wide))]
    design = Design([Stage(FUNCTIONS, SEEDS, (0,)), Stage(FUNCTIONS, SEEDS, (1,))])
    store = Store(storage, create=True)
    try:
        study = session.create_design(store, design, tasks, small)
    except StudyExists:
        study = store.study(NAME)
    pool = make_pool(small)
    with leases.held_lease(store, study) as lease:
        for progress in session.search(store, lease, study, small, pool, lambda: False):
            print(f"{progress.done} of {progress.total} trainings", flush=True)
    pool.close()
    for task in study.tasks:
        print(f"width {task.config.parameters.get('width', 8)}, mean of {len(SEEDS)} seeds:")
        for row in store.leaderboard(study, task_config=task.number):
            print(f"  {row['rank']}  {row['expression']:20}  {row['val_acc']:.4f}  ({row['n_trials']} trainings)")
    store.close()


if __name__ == "__main__":
    main()
