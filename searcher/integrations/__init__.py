"""Integrations with other programs: searches as jobs of a Ray cluster."""
