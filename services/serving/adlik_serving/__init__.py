"""Adlik's serving service."""
