"""Judge candidates: a worker gets a `Job`, trains a network with the candidate, and returns an `Outcome`.

Import from the modules: `workers.contract` needs the standard library only, `workers.tasks.images.train` needs torch,
and `workers.pools.ray_actors` needs Ray.
"""
