"""`gradsift draft`: a ranking before any build, by the base model's forward passes alone; always an approximation."""

from pathlib import Path
from typing import Annotated

import typer

from gradsift.config import BuildConfig, make_config

_FIELDS = BuildConfig.model_fields


def draft(
    pool: Annotated[list[str], typer.Argument(help="files, folders, patterns, saved datasets or hub ids")],
    model: Annotated[str, typer.Option(help=_FIELDS["model"].description)],
    targets: Annotated[Path, typer.Option(help="rows with `messages` (or any schema of the pool) and `subtask`")],
    out: Annotated[Path, typer.Option(help="a Parquet file: row, id, source, method, score, rank, best_subtask")],
    store: Annotated[
        Path | None, typer.Option(help="keeps the pass for other targets [default: OUT with -store for its ending]")
    ] = None,
    template: Annotated[str, typer.Option(help="chat (the tokenizer's own), tulu, or a Jinja file")] = "chat",
    limit_per_source: Annotated[
        int | None, typer.Option(help="rows kept per source, a seeded sample [default: all]")
    ] = None,
    max_length: Annotated[int, typer.Option(help=_FIELDS["max_length"].description)] = _FIELDS["max_length"].default,
) -> None:
    """Rank a pool before any build: an approximation of LESS by the base model's output layer, without a warmup."""
    from gradsift.builder.build import begin
    from gradsift.data.encode import read_template
    from gradsift.data.targets import require_targets
    from gradsift.runtime import atomic
    from gradsift.runtime.progress import Progress
    from gradsift.selection.score import score

    config = make_config(
        model=model, template=read_template(template), limit_per_source=limit_per_source, max_length=max_length
    )
    rows = require_targets(targets)
    place = store or out.with_name(f"{out.stem}-store")
    begun = begin(pool, place, config)
    progress = Progress()
    with progress.running():
        table = score(begun, rows, ["draft"], progress=progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.open_for_write(out) as file:
            table.to_parquet(file, index=False)
    typer.echo(f"{out}: {len(table):,} rows ranked by the draft, which approximates LESS; the pass is kept in {place}")
