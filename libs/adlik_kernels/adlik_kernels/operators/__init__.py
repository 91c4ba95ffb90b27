"""What users call: checks, packed weights and kernels behind plain functions on arrays."""
