"""Pools run jobs: in this process, on Ray actors of this machine or of a cluster, or simulated."""
