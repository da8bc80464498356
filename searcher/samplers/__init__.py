"""Samplers: what to try next. See `searcher.samplers.base` for the contract."""
