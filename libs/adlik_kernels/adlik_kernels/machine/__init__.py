"""The machine: what it has, what it can do at most, and the threads that share a call."""
