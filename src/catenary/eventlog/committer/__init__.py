"""Logs with a store behind them: what is accepted, and the one thread that writes it."""
