"""Judging candidates: a `Job` goes in, a child network is trained, an `Outcome` comes out.

Import from the modules: `workers.job` needs the standard library only, `workers.train` torch, `workers.ray_pool` Ray.
"""
