"""The command line: score, select, explain, inspect, verify, doctor, demo, app; others have modules of their own.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 1 failed, 2 wrong use.
Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.cli import build
from gradsift.cli.bench.commands import bench
from gradsift.cli.draft import draft
from gradsift.cli.evaluate import evaluate
from gradsift.cli.features import features
from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.runtime.errors import UsageError, explain
from gradsift.scoring.methods import METHODS

cli = typer.Typer(
    name="gradsift",
    help="Pick the training examples whose gradients help your target skill (LESS, arXiv 2402.04333).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(bench, name="bench")
cli.command(epilog="Example: gradsift evaluate store --targets mmlu.jsonl --test mmlu-test.jsonl --out report.json")(
    evaluate
)
build.register(cli)
cli.command(epilog="Example: gradsift draft pool/*.jsonl --model smollm2 --targets mmlu.jsonl --out draft.parquet")(
    draft
)
cli.command(epilog="Example: gradsift features store --targets mmlu.jsonl --out mmlu.safetensors")(features)


TargetsOption = Annotated[
    Path, typer.Option("--targets", help="rows with `messages` (or any schema of the pool) and `subtask`")
]
MethodsOption = Annotated[list[str], typer.Option("--method", help=f"{', '.join(METHODS)}; may be repeated")]
SimilarityOption = Annotated[Similarity, typer.Option(help="how vectors are compared")]
PoolingOption = Annotated[TargetPooling, typer.Option(help="within a subtask: the paper's, or the released code's")]
AggregateOption = Annotated[Aggregate, typer.Option(help="over subtasks")]
GradientOption = Annotated[
    GradientKind | None, typer.Option(help="which stored update LESS compares [default: the store's first]")
]
TargetFeaturesOption = Annotated[
    Path | None, typer.Option(help="the targets' features as gradsift features wrote them; no model is loaded then")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]


@cli.command(
    epilog="Example: gradsift score store --targets mmlu.jsonl --method less --method bm25 --out scores.parquet"
)
def score(
    store: Annotated[Path, typer.Argument(help="a finished store")],
    targets: TargetsOption,
    out: Annotated[Path, typer.Option(help="a Parquet file: row, id, source, method, score, rank, best_subtask")],
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
    _check_methods(method)
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
        about = {"out": str(out), "targets": len(rows), "rows": scored, "excluded": excluded, "best_score": best}
        _print_json(about)
    else:
        bests = ", ".join(f"{name} (best {value:.3f})" for name, value in best.items())
        typer.echo(f"{out}: {scored:,} rows by {bests}; {excluded:,} excluded rows have no score")


@cli.command(epilog="Example: gradsift select store --targets mmlu.jsonl --method less --top 5% --out picks")
def select(
    store: Annotated[Path, typer.Argument(help="a finished store")],
    targets: TargetsOption,
    top: Annotated[str, typer.Option(help="a share (5%), a number of rows (200) or tokens (50000tokens)")],
    out: Annotated[Path, typer.Option(help="a folder: train.jsonl, scores.parquet, picks.csv, README.md and more")],
    method: Annotated[str, typer.Option(help=", ".join(METHODS))] = "less",
    format: Annotated[
        str, typer.Option(help="messages, prompt-completion, alpaca, sharegpt, less or parquet")
    ] = "messages",
    compress: Annotated[str, typer.Option(help="the data file: none, gzip or zstd; parquet has its own")] = "none",
    bundle: Annotated[bool, typer.Option("--bundle", help="all files as one zip, too: OUT/OUTNAME.zip")] = False,
    report: Annotated[bool, typer.Option("--report", help="what was picked and how, too: OUT/report.html")] = False,
    evaluation: Annotated[
        list[Path] | None, typer.Option(help="a file whose texts no pick should share, as the targets'; repeat")
    ] = None,
    drop_leaks: Annotated[
        bool, typer.Option("--drop-leaks", help="others for picks that share text with them")
    ] = False,
    similarity: SimilarityOption = "cosine",
    target_pooling: PoolingOption = "cosine-of-mean",
    aggregate: AggregateOption = "max",
    gradient: GradientOption = None,
    target_features: TargetFeaturesOption = None,
    cap: Annotated[str, typer.Option(help="the most one source may have: 30% of the picks, or 200 rows")] = "",
    drop_duplicates: Annotated[bool, typer.Option("--drop-duplicates", help="one of near-duplicates")] = False,
    diverse: Annotated[
        bool, typer.Option("--diverse", help="a copy of a picked row, by its features, brings less")
    ] = False,
    length_matched: Annotated[bool, typer.Option("--length-matched", help="the pool's answer lengths")] = False,
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

    _check_methods([method])
    chosen = (
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
            **chosen.model_dump(),
            progress=progress,
        )
    manifest = json.loads((out / "manifest.json").read_text())
    if as_json:
        _print_json(manifest)
    else:
        among = f"of {manifest['scored_rows']:,} scored and {manifest['excluded_rows']:,} excluded"
        typer.echo(f"{path}: {manifest['picked_rows']:,} rows {among}, {manifest['picked_tokens']:,} tokens")
        if leaks := manifest["leakage"]["flagged_rows"]:
            typer.echo(f"{leaks:,} of them share text with the targets or an evaluation: see leakage.json")


@cli.command("explain", epilog="Example: gradsift explain store --targets mmlu.jsonl --row 12 --json")
def explain_row(
    store: Annotated[Path, typer.Argument(help="a finished store")],
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
        found = run(Store.open(store), require_targets(targets), row, subtask, progress)
    if as_json:
        _print_json(found.record())
    else:
        typer.echo(describe(found))


@cli.command(epilog="Example: gradsift inspect store --json")
def inspect(store: Annotated[Path, typer.Argument(help="a store")], as_json: JsonOption = False) -> None:
    """Show what is in a store: coverage, excluded rows, warmup health, sizes."""
    from gradsift.analysis.summary import describe
    from gradsift.analysis.summary import inspect as run
    from gradsift.datastore.store import Store

    description = run(Store.open(store))
    if as_json:
        _print_json(description)
    else:
        typer.echo(describe(description))


@cli.command(epilog="Example: gradsift verify store")
def verify(store: Annotated[Path, typer.Argument(help="a store")], as_json: JsonOption = False) -> None:
    """Check every hash and every row of a store; exits with 1 where something is wrong."""
    from gradsift.datastore.store import Store
    from gradsift.datastore.verify import verify as run
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        problems = run(store, progress)
    if as_json:
        _print_json({"store": str(store.resolve()), "whole": not problems, "problems": problems})
    elif problems:
        typer.echo("\n".join(problems))
    else:
        manifest = Store.open(store).manifest
        typer.echo(f"{store} is whole: {manifest.usable:,} rows at {len(manifest.checkpoints)} checkpoints.")
    if problems:
        raise typer.Exit(1)


@cli.command(epilog="Example: gradsift doctor store")
def doctor(
    store: Annotated[Path | None, typer.Argument(help="also compare this machine with its own")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show devices, libraries and folders as gradsift finds them; exits with 1 where something is wrong."""
    from dataclasses import asdict

    from gradsift.cli.doctor import describe, diagnose

    findings = diagnose(store)
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        typer.echo(describe(findings))
    if any(finding.problem for finding in findings):
        raise typer.Exit(1)


@cli.command(epilog="Example: gradsift demo")
def demo(
    workspace: Annotated[Path | None, typer.Argument(help="folder of stores, as of the app [default: yours]")] = None,
    no_app: Annotated[bool, typer.Option("--no-app", help="only build; print the store's path")] = False,
) -> None:
    """Build the embedded sample's datastore with the bundled small model, and open the app on it."""
    from gradsift.workspace.demo import demo as run

    typer.echo(run(workspace, with_app=not no_app))


@cli.command(epilog="Example: gradsift app ~/selection --port 8600")
def app(
    workspace: Annotated[
        Path | None, typer.Argument(help="folder of stores, targets and exports [default: yours]")
    ] = None,
    port: Annotated[int, typer.Option(help="0: the first free one from 8501 on")] = 0,
    address: Annotated[str, typer.Option(help="the address to listen at; 0.0.0.0 lets others in")] = "localhost",
) -> None:
    """Open the app in the browser."""
    from gradsift.workspace.demo import serve

    serve(workspace, port, address)


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its asides are no news to who types commands
    try:
        cli()
    except KeyboardInterrupt:
        _fail("Stopped; what was finished is kept.", 1)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        _fail(sentence, 2 if isinstance(error, UsageError) else 1)


def _fail(sentence: str, code: int) -> None:
    print(f"gradsift: {sentence}", file=sys.stderr)
    sys.exit(code)


def _check_methods(names: list[str]) -> None:
    from gradsift.scoring.methods import get_method

    for name in names:
        get_method(name)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))
