"""The command line: ``catenary``."""

from catenary.cli.application import app, main

__all__ = ["app", "main"]
