"""``python -m catenary.cli``."""

from catenary.cli import main

# Workers are spawned, and import this module under another name.
if __name__ == "__main__":
    main()
