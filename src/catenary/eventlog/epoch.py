"""Epochs: the names of terms."""

from __future__ import annotations

import secrets


def new_epoch() -> str:
    """Return a random name for a term: 40 bits, so that a reuse is not met in practice."""
    return secrets.token_hex(5)
