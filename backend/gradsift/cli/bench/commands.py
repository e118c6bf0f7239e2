"""`gradsift bench ...`: measurements as commands."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.config import BuildConfig, ModelDtype, StoreDtype

bench = typer.Typer(
    help="Measure this machine against the budgets and against others, side by side.", no_args_is_help=True
)


@bench.command(epilog="Example: gradsift bench app --json")
def app(
    rows: Annotated[int, typer.Option(min=1000, help="of the store; the paper's pool unless given")] = 270_679,
    folder: Annotated[
        Path | None, typer.Option(help="where the store is made, and kept for the next time [default: the cache]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """What a person waits for in the app on a large store: paint, interaction, search, re-ranking, payload, memory."""
    from gradsift.cli.bench.app import bench_app
    from gradsift.runtime.paths import cache_home
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        found = bench_app(folder or cache_home() / "bench" / f"app-{rows}", rows, progress)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found["app"])))


@bench.command(epilog="Example: gradsift bench scoring --rows 20000 --json")
def scoring(
    rows: Annotated[int, typer.Option(min=1, help="of the store; the paper's pool unless given")] = 270_679,
    dim: Annotated[int, typer.Option(min=8, help="of the features")] = 8192,
    checkpoints: Annotated[int, typer.Option(min=1)] = 4,
    store_dtype: Annotated[StoreDtype | None, typer.Option(help="of one store [default: int8, then bit]")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="where the stores are made, and kept for the next time [default: the cache]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """A scoring pass with 8 and 57 target vectors beside one plain pass over the same mapped bytes; the working set."""
    from gradsift.cli.bench.scoring import bench_scoring
    from gradsift.runtime.paths import cache_home
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        dtypes: tuple[StoreDtype, ...] = (store_dtype,) if store_dtype else ("int8", "bit")
        found = bench_scoring(folder or cache_home() / "bench" / "scoring", rows, dim, checkpoints, dtypes, progress)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found["scoring"])))


@bench.command(epilog="Example: gradsift bench bm25 --json")
def bm25(
    pool: Annotated[list[str] | None, typer.Argument(help="files of rows; synthetic text unless given")] = None,
    rows: Annotated[int, typer.Option(min=100, help="of synthetic text")] = 270_000,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Counting a pool's words and asking for 200 of them; time and scores beside rank-bm25 on a sample."""
    from gradsift.cli.bench.bm25 import bench_bm25
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        found = bench_bm25(pool or [], rows, progress)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found["bm25"])))


@bench.command(epilog="Example: gradsift bench features pool/*.jsonl --bergson ENV --json")
def features(
    pool: Annotated[list[str] | None, typer.Argument(help="as for build [default: the embedded sample]")] = None,
    model: Annotated[str, typer.Option(help=BuildConfig.model_fields["model"].description)] = "smollm2",
    template: Annotated[str, typer.Option(help="chat (the tokenizer's own), tulu, or a Jinja file")] = "chat",
    dtype: Annotated[ModelDtype, typer.Option(help=BuildConfig.model_fields["dtype"].description)] = "fp32",
    rank: Annotated[int, typer.Option(min=1, help="of LoRA")] = 16,
    rows: Annotated[int, typer.Option(min=1, help="of at most 256 tokens; longer ones are left out")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="paired with the bare pass; slower peers get fewer")] = 9,
    bergson: Annotated[
        Path | None, typer.Option(help="folder of a virtual environment with bergson [default: without it]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """The price of gradient features: beside the bare backward pass, the released code's way, and bergson."""
    from gradsift.cli.bench.features import bench_features
    from gradsift.data.encode import read_template
    from gradsift.runtime.progress import Progress
    from gradsift.workspace.workspace import sample_pool

    config = BuildConfig(model=model, template=read_template(template), dtype=dtype, lora_rank=rank)
    progress = Progress()
    with progress.running():
        found = bench_features(pool or sample_pool(), config, rows, runs, bergson, progress)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found["features"])))


def _lines(found: dict[str, Any], before: str = "") -> list[str]:
    """Nested figures as lines, a name and its values each."""
    lines = []
    for name, value in found.items():
        if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
            lines += _lines(value, f"{before}{name} ")
        elif isinstance(value, dict):
            lines.append(f"{before}{name:<24}" + "  ".join(f"{key} {part}" for key, part in value.items()))
        else:
            lines.append(f"{before}{name:<24}{value}")
    return lines
