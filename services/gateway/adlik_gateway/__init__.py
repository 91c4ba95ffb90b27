"""Adlik's gateway service."""
