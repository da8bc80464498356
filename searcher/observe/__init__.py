"""Show a running search: logs, a progress bar, metrics over HTTP."""
