"""The command line: every command with its example, and how failures are reported.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 success, 1 failure, 2 wrong usage.
Heavy libraries are imported inside the commands, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable

from gradsift.cli import app, build, doctor, evaluate, explain, masks, score, select, store
from gradsift.cli.bench.commands import bench
from gradsift.cli.commands import make_group
from gradsift.runtime import errors

COMMANDS: dict[Callable[..., None], str] = {  # in the order of the help
    masks.masks: "gradsift masks smollm2 pool/*.jsonl --rows 1",
    build.plan: "gradsift plan pool/*.jsonl --model smollm2 --epochs 2 --lora-rank 16",
    build.build: "gradsift build pool/*.jsonl --model smollm2 --epochs 2 --lora-rank 16 --out store. "
    "More rows later: gradsift build new.jsonl --model smollm2 --out store --append",
    build.draft: "gradsift draft pool/*.jsonl --model smollm2 --targets mmlu.jsonl --out draft.parquet",
    score.score: "gradsift score store --targets mmlu.jsonl --method less --method bm25 --out scores.parquet",
    score.features: "gradsift features store --targets mmlu.jsonl --out mmlu.safetensors",
    select.select: "gradsift select store --targets mmlu.jsonl --method less --top 5% --out picks",
    explain.explain: "gradsift explain store --targets mmlu.jsonl --row 12 --json",
    evaluate.evaluate: "gradsift evaluate store --targets mmlu.jsonl --test mmlu-test.jsonl --out report.json",
    store.inspect: "gradsift inspect store --json",
    store.verify: "gradsift verify store",
    doctor.doctor: "gradsift doctor store",
    app.demo: "gradsift demo",
    app.app: "gradsift app ~/selection --port 8600",
}

cli = make_group(
    "Pick the training examples whose gradients help your target skill (LESS, arXiv 2402.04333).",
    COMMANDS,
    name="gradsift",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli.add_typer(bench, name="bench")


def main() -> None:
    """Run the command line; every expected failure is one sentence on standard error."""
    # OpenMP reads this when torch is loaded. Threads that spin while they wait take cores from every other process.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its remarks do not help people who type commands
    try:
        cli()
    except KeyboardInterrupt:
        _fail("Stopped; finished work is kept.", 1)
    except Exception as error:
        sentence = errors.explain(error)
        if sentence is None:
            raise
        _fail(sentence, 2 if isinstance(error, errors.UsageError) else 1)


def _fail(sentence: str, code: int) -> None:
    print(f"gradsift: {sentence}", file=sys.stderr)
    sys.exit(code)
