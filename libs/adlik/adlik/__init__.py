"""The Adlik client."""
