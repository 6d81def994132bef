"""``redis://``: event logs in Redis or Valkey, shared by many nodes."""
