"""A whole mesh on this machine: NATS and the four services as supervised processes."""
