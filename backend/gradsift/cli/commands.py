"""How commands are registered: a group is a table of functions, each with the example that ends its help."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import typer


def make_group(help: str, commands: Mapping[Callable[..., None], str], **settings: Any) -> typer.Typer:
    """A group of commands named after their functions. commands: function -> example; settings: of `typer.Typer`."""
    group = typer.Typer(help=help, no_args_is_help=True, **settings)
    for command, example in commands.items():
        group.command(epilog=f"Example: {example}")(command)
    return group


def print_json(value: Any) -> None:
    """Write a JSON value to standard output."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
