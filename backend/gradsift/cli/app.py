"""`gradsift demo` and `gradsift app`: the app in the browser, on the embedded sample or on your own workspace."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    workspace: Annotated[
        Path | None, typer.Argument(help="folder of stores, as for gradsift app [default: yours]")
    ] = None,
    no_app: Annotated[bool, typer.Option("--no-app", help="only build; print the store's path")] = False,
) -> None:
    """Build the embedded sample's datastore with the bundled small model, and open the app on it."""
    from gradsift.workspace.demo import demo as run

    typer.echo(run(workspace, with_app=not no_app))


def app(
    workspace: Annotated[
        Path | None, typer.Argument(help="folder of stores, targets and exports [default: yours]")
    ] = None,
    port: Annotated[int, typer.Option(help="0 means the first free port from 8501 on")] = 0,
    address: Annotated[
        str, typer.Option(help="the address to listen on; 0.0.0.0 lets other machines in")
    ] = "localhost",
) -> None:
    """Open the app in the browser."""
    from gradsift.workspace.demo import serve

    serve(workspace, port, address)
