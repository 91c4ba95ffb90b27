"""Loops around micro-kernels, written from a workload and a schedule."""
