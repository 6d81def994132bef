"""``sqlite://``: event logs in a file, written by one process at a time."""
