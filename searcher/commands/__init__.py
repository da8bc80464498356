"""The command line's groups of commands and what they share. `cli.py` puts them together; nothing else imports them."""
