"""`gradsift select`: the best rows within a budget, written for a trainer."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import (
    AggregateOption,
    FinishedStoreArgument,
    GradientOption,
    JsonOption,
    PoolingOption,
    SimilarityOption,
    TargetFeaturesOption,
    TargetsOption,
)
from gradsift.scoring.methods import METHODS, get_method


def select(
    store: FinishedStoreArgument,
    targets: TargetsOption,
    top: Annotated[str, typer.Option(help="a share (5%), a number of rows (200) or tokens (50000tokens)")],
    out: Annotated[Path, typer.Option(help="a folder: train.jsonl, scores.parquet, picks.csv, README.md and more")],
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = "less",
    format: Annotated[
        str, typer.Option(help="messages, prompt-completion, alpaca, sharegpt, less or parquet")
    ] = "messages",
    compress: Annotated[str, typer.Option(help="the data file: none, gzip or zstd; parquet has its own")] = "none",
    bundle: Annotated[bool, typer.Option("--bundle", help="also write everything as one zip: OUT/OUTNAME.zip")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="also write what was picked and how: OUT/report.html")
    ] = False,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="a file with which no pick should share text, besides the targets; may be repeated"),
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="replace picks that share text with targets or evaluations")
    ] = False,
    similarity: SimilarityOption = "cosine",
    target_pooling: PoolingOption = "cosine-of-mean",
    aggregate: AggregateOption = "max",
    gradient: GradientOption = None,
    target_features: TargetFeaturesOption = None,
    cap: Annotated[str, typer.Option(help="the most one source may have: 30% of the picks, or 200 rows")] = "",
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="keep one of near-duplicates")] = False,
    diverse: Annotated[bool, typer.Option("--diverse", help="penalise near-copies of earlier picks")] = False,
    length_matched: Annotated[bool, typer.Option("--length-matched", help="match the pool's answer lengths")] = False,
    choices: Annotated[
        Path | None, typer.Option(help="a JSON file of choices, as the app writes it; replaces the flags above")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pick the best rows within a budget and write them for a trainer."""
    from gradsift.data.targets import require_targets
    from gradsift.datastore.store import Store
    from gradsift.export.selection import select as run
    from gradsift.runtime.progress import Progress
    from gradsift.scoring.choices import make_choices, read_choices

    get_method(method)
    options = (
        read_choices(choices)
        if choices
        else make_choices(
            similarity=similarity,
            target_pooling=target_pooling,
            aggregate=aggregate,
            gradient=gradient,
            cap=cap,
            drop_duplicates=drop_duplicates,
            diverse=diverse,
            length_matched=length_matched,
        )
    )
    progress = Progress()
    with progress.running():
        path = run(
            Store.open(store),
            require_targets(targets),
            top,
            out,
            method=method,
            format=format,
            compress=compress,
            bundle=bundle,
            report=report,
            evaluation=evaluation or [],
            drop_leaks=drop_leaks,
            target_features=target_features,
            **options.model_dump(),
            progress=progress,
        )
    manifest = json.loads((out / "manifest.json").read_text())
    if as_json:
        print_json(manifest)
    else:
        total = f"of {manifest['scored_rows']:,} scored and {manifest['excluded_rows']:,} excluded"
        typer.echo(f"{path}: {manifest['picked_rows']:,} rows {total}, {manifest['picked_tokens']:,} tokens")
        if leaks := manifest["leakage"]["flagged_rows"]:
            typer.echo(f"{leaks:,} of them share text with the targets or an evaluation: see leakage.json")
