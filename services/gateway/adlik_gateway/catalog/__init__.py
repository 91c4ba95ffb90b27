"""What the mesh knows of its models: folded from events, kept in shared state, watched by users."""
