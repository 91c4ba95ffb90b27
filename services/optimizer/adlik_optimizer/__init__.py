"""Adlik's optimizer service."""
