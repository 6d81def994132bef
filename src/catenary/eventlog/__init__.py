"""Event logs: one append-only log a user, behind one contract (``base.py``)."""
