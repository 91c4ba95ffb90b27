"""Load and run a compiled model, one file per engine."""
