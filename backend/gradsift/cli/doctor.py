"""`gradsift doctor`: whether this machine has what gradsift needs."""

from pathlib import Path
from typing import Annotated

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import JsonOption


def doctor(
    store: Annotated[
        Path | None, typer.Argument(help="also compare this machine with the one that built this store")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show devices, libraries and folders as gradsift finds them; exits with 1 if something is wrong."""
    from dataclasses import asdict

    from gradsift.cli.diagnosis import describe, diagnose

    findings = diagnose(store)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        typer.echo(describe(findings))
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)
