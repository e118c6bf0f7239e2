"""`gradsift bench ...`: measurements as commands."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.config import BuildConfig, ModelDtype

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
    from gradsift.bench.app import bench_app
    from gradsift.paths import cache_home
    from gradsift.progress import Progress

    progress = Progress()
    with progress.running():
        found = bench_app(folder or cache_home() / "bench" / f"app-{rows}", rows, progress)
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(_lines(found["app"])))


@bench.command(epilog="Example: gradsift bench features pool/*.jsonl --bergson ENV --json")
def features(
    pool: Annotated[list[str] | None, typer.Argument(help="as for build [default: the embedded sample]")] = None,
    model: Annotated[str, typer.Option(help=BuildConfig.model_fields["model"].description)] = "smollm2",
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
    from gradsift.bench.features import bench_features
    from gradsift.progress import Progress
    from gradsift.workspace import sample_pool

    config = BuildConfig(model=model, dtype=dtype, lora_rank=rank)
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
