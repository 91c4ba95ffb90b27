"""`python -m adlik` is `adlik`."""

from adlik.cli import main

main()
