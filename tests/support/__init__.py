"""What several tests share: real servers, made-up records, searches that take no time."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
