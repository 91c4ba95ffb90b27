"""Graph passes: one idea per file, each safe wherever it fires."""
