"""Where jobs run: in this process, on Ray actors, on a Ray cluster, or simulated."""
