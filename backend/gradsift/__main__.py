"""`python -m gradsift`: the command line."""

from gradsift.cli import main

main()
