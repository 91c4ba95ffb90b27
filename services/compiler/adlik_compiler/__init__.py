"""Adlik's compiler service."""
