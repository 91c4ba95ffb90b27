"""Generated message and service code; see `proto/generate.py`."""
