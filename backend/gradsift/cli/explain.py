"""`gradsift explain`: which words of a row's answer matter to the targets."""

from typing import Annotated

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import FinishedStoreArgument, JsonOption, TargetsOption


def explain(
    store: FinishedStoreArgument,
    targets: TargetsOption,
    row: Annotated[int, typer.Option(help="a row of the pool, as `gradsift score` numbers them")],
    subtask: Annotated[str | None, typer.Option(help="[default: the one on which the row scores highest]")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show which words of a row's answer pull the model toward the targets, and which away from them."""
    from gradsift.analysis.tokens import describe
    from gradsift.analysis.tokens import explain as run
    from gradsift.data.targets import require_targets
    from gradsift.datastore.store import Store
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        influence = run(Store.open(store), require_targets(targets), row, subtask, progress)
    if as_json:
        print_json(influence.record())
    else:
        typer.echo(describe(influence))
