"""The loop of a search, what it keeps in memory, and how it survives outages, kills and other drivers."""
