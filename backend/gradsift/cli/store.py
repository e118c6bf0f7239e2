"""`gradsift inspect` and `gradsift verify`: what is in a store, and whether it is intact."""

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import JsonOption, StoreArgument


def inspect(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Show what is in a store: coverage, excluded rows, warmup health, sizes."""
    from gradsift.analysis.summary import describe
    from gradsift.analysis.summary import inspect as run
    from gradsift.datastore.store import Store

    description = run(Store.open(store))
    if as_json:
        print_json(description)
    else:
        typer.echo(describe(description))


def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Check every hash and every row of a store; exits with 1 if something is wrong."""
    from gradsift.datastore.store import Store
    from gradsift.datastore.verify import verify as run
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        problems = run(store, progress)
    if as_json:
        print_json({"store": str(store.resolve()), "whole": not problems, "problems": problems})
    elif problems:
        typer.echo("\n".join(problems))
    else:
        manifest = Store.open(store).manifest
        typer.echo(f"{store} is whole: {manifest.usable:,} rows at {len(manifest.checkpoints)} checkpoints.")
    if problems:
        raise typer.Exit(1)
