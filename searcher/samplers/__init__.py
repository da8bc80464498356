"""Samplers: what to try next. See `searcher.samplers.contract` for the contract."""
