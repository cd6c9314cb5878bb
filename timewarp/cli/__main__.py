"""`python -m timewarp.cli` is the command `timewarp`."""

from timewarp.cli import main

main()
