"""The commands of the command line, and their shared helpers. Only `cli.py` imports them."""
