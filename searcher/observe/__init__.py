"""How a running search shows itself: logs, a progress bar, metrics over HTTP."""
