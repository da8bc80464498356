"""The loop of a search, its state in memory, and its handling of failures, outages, leases and other drivers."""
