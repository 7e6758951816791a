"""The command line: one file a command group, and the only floor that prints."""
