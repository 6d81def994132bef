"""``python -m catenary.cli``."""

from catenary.cli import main

main()
