"""`gradsift evaluate`: train on each method's picks and compare the results on held-out rows."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.cli.options import JsonOption, TemplateOptions


def evaluate(
    store: Annotated[
        list[Path], typer.Argument(help="finished stores; seed k uses the k-th, starting over after the last")
    ],
    targets: Annotated[list[Path], typer.Option(help="target examples; repeat for several sets, named by their files")],
    test: Annotated[
        list[Path],
        typer.Option(help="held-out rows for each --targets; `answers`, `answer` or a short last turn are judged"),
    ],
    out: Annotated[Path, typer.Option(help="the report, a JSON file; the same command resumes where it stopped")],
    method: Annotated[
        list[str], typer.Option(help="less, bm25, ..., full; with choices: less:aggregate=round-robin; may be repeated")
    ] = ["less"],  # noqa: B006  typer reads the default, nothing changes it
    budget: Annotated[str, typer.Option(help="what every method may pick: 5%, 200, 50000tokens")] = "5%",
    seeds: Annotated[int, typer.Option(min=1, help="training seeds; random draws again for each")] = 3,
    train_model: Annotated[
        str | None, typer.Option(help="train this model on the picks [default: the one that selected them]")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="template of the trained model: chat, tulu or a Jinja file [default: the store's]"),
    ] = None,
    template_option: TemplateOptions = None,
    lora_targets: Annotated[
        str | None, typer.Option(help="layers of the trained model that get LoRA [default: the store's]")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="epochs of every run [default: as in the store's warmup]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="examples per step [default: as in the store's warmup]")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="peak learning rate [default: as in the store's warmup]")] = None,
    script: Annotated[Path | None, typer.Option(help="also write the recipe as a training script, a .py file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune on each method's picks and compare held-out loss, also of zero-shot, random and the targets."""
    from gradsift.config import parse_options
    from gradsift.data.encode import read_template
    from gradsift.data.targets import require_targets
    from gradsift.datastore.store import Store
    from gradsift.evaluation.heldout import read_heldout
    from gradsift.evaluation.plan import EvaluationSet, store_recipe
    from gradsift.evaluation.report import summary
    from gradsift.evaluation.run import evaluate as run
    from gradsift.evaluation.script import training_script
    from gradsift.runtime import atomic
    from gradsift.runtime.errors import UsageError
    from gradsift.runtime.progress import Progress
    from gradsift.runtime.tables import table

    if len(targets) != len(test):
        raise UsageError(f"{len(targets)} --targets and {len(test)} --test: give one --test for every --targets.")
    progress = Progress()
    with progress.running():
        sets = [
            EvaluationSet(selecting.stem, require_targets(selecting), read_heldout(judging))
            for selecting, judging in zip(targets, test, strict=True)
        ]
        changes: dict[str, Any] = {"model": train_model, "epochs": epochs, "batch_size": batch_size, "lr": lr}
        changes["template"] = read_template(template) if template else None
        changes["template_options"] = parse_options(template_option) if template_option else None
        changes["lora_targets"] = tuple(lora_targets.replace(",", " ").split()) if lora_targets else None
        recipe = store_recipe(Store.open(store[0]), **{k: v for k, v in changes.items() if v is not None})
        if script is not None:
            atomic.write_text(script, training_script(recipe))
        report = run(store, sets, out, methods=method, budget=budget, seeds=seeds, recipe=recipe, progress=progress)
    if script is not None:  # with the dtype that `auto` means here
        atomic.write_text(script, training_script(report.recipe))
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        lines = summary(report)
        rows = [[_cell(value) for value in line] for line in lines.itertuples(index=False)]
        typer.echo(table(rows, list(lines.columns), left=2))


def _cell(value: str | float) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4f}"
    return str(value)
