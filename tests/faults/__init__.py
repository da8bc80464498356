"""What is killed, cut off, filled up or damaged, and what must hold: docs/guarantees.md."""
