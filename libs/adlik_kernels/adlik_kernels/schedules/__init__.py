"""How a workload may be computed, what was measured of it, and what is chosen unmeasured."""
