"""Samplers propose functions to train. See `searcher.samplers.contract` for the contract."""
