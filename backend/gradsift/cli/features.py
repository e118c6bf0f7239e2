"""`gradsift features`: target features, computed where the GPU is."""

from pathlib import Path
from typing import Annotated

import typer


def features(
    store: Annotated[Path, typer.Argument(help="a store with its checkpoints; its shards are not read")],
    targets: Annotated[Path, typer.Option(help="the target examples, as for `gradsift score`")],
    out: Annotated[Path, typer.Option(help="a safetensors file for `gradsift score --target-features`")],
) -> None:
    """Compute the targets' features, to score a copy of the store on a machine without the model."""
    from gradsift.data.targets import require_targets
    from gradsift.datastore.store import Store
    from gradsift.runtime.progress import Progress
    from gradsift.scoring.portable import target_features

    progress = Progress()
    with progress.running():
        path = target_features(Store.open(store), require_targets(targets), out, progress=progress)
    typer.echo(path)
