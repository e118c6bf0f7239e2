"""`gradsift bench ...`: measurements as commands."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.cli.commands import make_group, print_json
from gradsift.cli.options import BenchFolderOption, JsonOption, ModelOption, TemplateOption, TemplateOptions
from gradsift.config import BuildConfig, ModelDtype, StoreDtype, make_config, parse_options
from gradsift.runtime.tables import table


def app(
    rows: Annotated[int, typer.Option(min=1000, help="rows of the store, by default as in the paper's pool")] = 270_679,
    folder: BenchFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """How long people wait in the app on a large store: paint, interaction, search, re-ranking; payload and memory."""
    from gradsift.cli.bench.app import bench_app
    from gradsift.runtime.paths import cache_home
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        figures = bench_app(folder or cache_home() / "bench" / f"app-{rows}", rows, progress)
    _print(figures, as_json)


def scoring(
    rows: Annotated[int, typer.Option(min=1, help="rows of the store, by default as in the paper's pool")] = 270_679,
    dim: Annotated[int, typer.Option(min=8, help="dimension of the features")] = 8192,
    checkpoints: Annotated[int, typer.Option(min=1, help="checkpoints of the store")] = 4,
    store_dtype: Annotated[
        StoreDtype | None, typer.Option(help="type of the features [default: int8, then bit]")
    ] = None,
    folder: BenchFolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """A scoring pass with 8 and 57 target vectors, compared with a plain pass over the same bytes; the working set."""
    from gradsift.cli.bench.scoring import bench_scoring
    from gradsift.runtime.paths import cache_home
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        dtypes: tuple[StoreDtype, ...] = (store_dtype,) if store_dtype else ("int8", "bit")
        figures = bench_scoring(folder or cache_home() / "bench" / "scoring", rows, dim, checkpoints, dtypes, progress)
    _print(figures, as_json)


def bm25(
    pool: Annotated[list[str] | None, typer.Argument(help="files of rows [default: synthetic text]")] = None,
    rows: Annotated[int, typer.Option(min=100, help="rows of synthetic text")] = 270_000,
    as_json: JsonOption = False,
) -> None:
    """Counting a pool's words and querying 200 of them; time and scores compared with rank-bm25 on a sample."""
    from gradsift.cli.bench.bm25 import bench_bm25
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        figures = bench_bm25(pool or [], rows, progress)
    _print(figures, as_json)


def features(
    pool: Annotated[list[str] | None, typer.Argument(help="as for build [default: the embedded sample]")] = None,
    model: ModelOption = "smollm2",
    template: TemplateOption = "chat",
    template_option: TemplateOptions = None,
    dtype: Annotated[ModelDtype, typer.Option(help=BuildConfig.model_fields["dtype"].description)] = "fp32",
    rank: Annotated[int, typer.Option(min=1, help="rank of LoRA")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="rows to measure; those over 256 tokens are left out")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="runs paired with the bare pass; slower peers get fewer")] = 9,
    bergson: Annotated[
        Path | None, typer.Option(help="folder of a virtual environment with bergson [default: without it]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """The price of gradient features, compared with the bare backward pass, the released code's way and bergson."""
    from gradsift.cli.bench.features import bench_features
    from gradsift.data.encode import read_template
    from gradsift.runtime.progress import Progress
    from gradsift.workspace.workspace import sample_pool

    options = parse_options(template_option or ())
    text = read_template(template)
    config = make_config(model=model, template=text, template_options=options, dtype=dtype, lora_rank=rank)
    progress = Progress()
    with progress.running():
        figures = bench_features(pool or sample_pool(), config, rows, runs, bergson, progress)
    _print(figures, as_json)


def encoding(
    pool: Annotated[list[str] | None, typer.Argument(help="as for build [default: the embedded sample]")] = None,
    model: ModelOption = "smollm2",
    template: TemplateOption = "chat",
    template_option: TemplateOptions = None,
    rows: Annotated[int, typer.Option(min=1, help="rows to encode; the pool's are repeated or cut")] = 4000,
    as_json: JsonOption = False,
) -> None:
    """Rows encoded a second, of the pool and synthetic ones of 20 exchanges, by one process and by several."""
    from gradsift.cli.bench.encoding import bench_encoding
    from gradsift.data.encode import read_template
    from gradsift.runtime.progress import Progress
    from gradsift.workspace.workspace import sample_pool

    options = parse_options(template_option or ())
    config = make_config(model=model, template=read_template(template), template_options=options)
    progress = Progress()
    with progress.running():
        figures = bench_encoding(pool or sample_pool(), config, rows, progress)
    _print(figures, as_json)


def _print(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(figures)
    else:
        typer.echo(table([row for part in figures.values() for row in _rows(part)], left=2))


def _rows(figures: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Nested figures as rows of a table: a name, then its value or values."""
    for name, value in figures.items():
        if not isinstance(value, dict):
            yield f"{before}{name}", str(value)
        elif any(isinstance(part, dict) for part in value.values()):
            yield from _rows(value, f"{before}{name} ")
        else:
            yield f"{before}{name}", "  ".join(f"{key} {part}" for key, part in value.items())


bench = make_group(
    "Measure gradsift on this machine, side by side with its time budgets and with other programs.",
    {
        app: "gradsift bench app --json",
        scoring: "gradsift bench scoring --rows 20000 --json",
        bm25: "gradsift bench bm25 --json",
        encoding: "gradsift bench encoding pool/*.jsonl --json",
        features: "gradsift bench features pool/*.jsonl --bergson ENV --json",
    },
)
