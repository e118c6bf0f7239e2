"""`python -m gradsift`: the command line."""

from gradsift.cli.main import main

main()
