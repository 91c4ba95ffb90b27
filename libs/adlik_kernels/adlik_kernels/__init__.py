"""Hot operators in numba, and their tuner."""
