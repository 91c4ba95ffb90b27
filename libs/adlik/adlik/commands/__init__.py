"""The commands of `adlik`, a file for each group."""
