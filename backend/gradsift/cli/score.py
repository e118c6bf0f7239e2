"""`gradsift score` and `gradsift features`: every row's score, and the targets' features computed on a GPU machine."""

from pathlib import Path
from typing import Annotated

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import (
    AggregateOption,
    FinishedStoreArgument,
    GradientOption,
    JsonOption,
    MethodsOption,
    PoolingOption,
    ScoresOut,
    SimilarityOption,
    TargetFeaturesOption,
    TargetsOption,
)
from gradsift.scoring.methods import get_method


def score(
    store: FinishedStoreArgument,
    targets: TargetsOption,
    out: ScoresOut,
    method: MethodsOption = ["less"],  # noqa: B006  typer reads the default, nothing changes it
    similarity: SimilarityOption = "cosine",
    target_pooling: PoolingOption = "cosine-of-mean",
    aggregate: AggregateOption = "max",
    gradient: GradientOption = None,
    target_features: TargetFeaturesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score every usable row of a store against target examples."""
    from gradsift.data.targets import require_targets
    from gradsift.datastore.store import Store
    from gradsift.runtime import atomic
    from gradsift.runtime.progress import Progress
    from gradsift.selection.score import score as run
    from gradsift.text.index import ensure_index

    method = list(dict.fromkeys(method))
    for name in method:
        get_method(name)
    progress = Progress()
    with progress.running():
        rows = require_targets(targets)
        opened = Store.open(store)
        table = run(
            opened,
            rows,
            method,
            similarity=similarity,
            target_pooling=target_pooling,
            aggregate=aggregate,
            gradient=gradient,
            target_features=target_features,
            progress=progress,
        )
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.open_for_write(out) as file:
            table.to_parquet(file, index=False)
        ensure_index(opened, progress)
    best = {name: float(frame["score"].max()) for name, frame in table.groupby("method", sort=False)}
    scored = len(table) // len(method)
    excluded = opened.manifest.rows - scored
    if as_json:
        result = {"out": str(out), "targets": len(rows), "rows": scored, "excluded": excluded, "best_score": best}
        print_json(result)
    else:
        bests = ", ".join(f"{name} (best {value:.3f})" for name, value in best.items())
        typer.echo(f"{out}: {scored:,} rows by {bests}; {excluded:,} excluded rows have no score")


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
