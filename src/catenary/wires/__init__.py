"""Wires: pure functions from records to what one kind of client reads."""
