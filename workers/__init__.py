"""How a candidate is judged: a `Job` goes in, a child network is trained, an `Outcome` comes out.

Import from the modules: `workers.contract` needs the standard library only, `workers.tasks.images.train` torch,
`workers.pools.ray_actors` Ray.
"""
