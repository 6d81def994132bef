"""The event log in NATS JetStream."""
