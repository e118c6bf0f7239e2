"""The measured part of docs/results.md, from the reports of `gradsift evaluate` and of docs/agreement.py."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from measured import fill, table

from gradsift.evaluation.report import RANDOM, ZERO_SHOT, Report, read_report, run_key, summary

ORDER = ("mmlu", "bbh", "tydiqa")
NAMES = {"mmlu": "MMLU", "bbh": "BBH", "tydiqa": "TyDiQA"}
REPORTS = Path(__file__).resolve().parent / "results"
CORE = REPORTS / "core.json"
Scores = tuple[float | str, float | str, float | str]  # MMLU, BBH, TyDiQA
PAPER: dict[str, Scores] = {  # Llama-2-7B, 5 % of 270,679 rows; accuracy, exact match, F1
    "zero-shot": (45.6, 38.3, 46.4),  # table 10
    "full": (51.6, 43.2, 54.0),  # table 2
    "random": (46.5, 38.9, 52.7),  # table 3, like the next four
    "bm25": (47.6, 39.8, 52.7),
    "dsir": (46.1, 36.8, 44.5),
    "rds": (45.0, 36.7, 46.8),
    "less": (50.2, 41.5, 56.2),
    "validation": (47.3, 36.5, 52.8),  # table 10
    "less:similarity=dot": (47.3, 37.4, 52.3),  # table 12
    "less:without_checkpoints=epoch-2": (48.2, 40.2, 54.9),  # table 6, N = 1
}


@dataclass(frozen=True)
class OtherStore:
    """A store that differs from the core's, and the methods that pick from it, with one training seed each.

    changes: to the build's parameters. untrained: its only checkpoint is LoRA before training. methods: each with the
    paper's figures for it, if there are any.
    """

    name: str
    what: str
    changes: dict[str, Any]
    methods: dict[str, Scores]
    untrained: bool = False


NONE: Scores = ("", "", "")
SGD, SIGN = "less:gradient=sgd", "less:gradient=sign"
OTHER_STORES = (
    OtherStore(
        "gradients",
        "other gradients (table 9)",
        {"gradients": ("sgd", "sign")},
        {SGD: (50.9, 40.0, 58.1), SIGN: (49.7, 39.0, 54.8)},
    ),
    OtherStore("dim-1024", "d = 1,024 (table 11)", {"dim": 1024}, {"less": (50.7, 39.3, 55.3)}),
    OtherStore("no-warmup", "no warmup (table 5)", {"gradients": ("sgd",)}, {SGD: (46.7, 39.8, 52.1)}, untrained=True),
    OtherStore(
        "whole-warmup", "warmup on the whole pool (table 5)", {"warmup_fraction": 1.0}, {"less": (51.6, 41.9, 57.9)}
    ),
    OtherStore("warmup-seed", "another seed of warmup and projection", {"seed": 1}, {"less": NONE}),
)


def write_page(out: Path) -> None:
    """Write what the reports and `agreement.json` hold so far between the markers of the page."""
    core = _in_order(read_report(CORE))
    beside = REPORTS / "agreement.json"
    measured = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    parts = [
        _setting(core),
        _losses(core),
        _pairs(core),
        _others(core),
        _scores(core),
        _epochs(core),
        _law(core),
        _shares(core),
    ]
    fill(out, "\n\n".join(part.strip() for part in [*parts, *_agreement(measured)] if part))


def _in_order(report: Report) -> Report:
    """The report sorted by set in the paper's order, then method, then seed, in whatever order the runs ended."""
    place, methods = {name: at for at, name in enumerate(ORDER)}, _methods(report)
    sets = sorted(report.sets, key=lambda name: place.get(name, len(place)))
    runs = sorted(report.runs, key=lambda run: (sets.index(run.target_set), methods.index(run.method), run.seed))
    return report.model_copy(update={"sets": {name: report.sets[name] for name in sets}, "runs": runs})


def _setting(report: Report) -> str:
    recipe, store = report.recipe, report.stores[0] if report.stores else None
    lines = [f"{len(report.runs)} of {report.planned} runs are done."]
    if store:
        pool = ", ".join(f"{name} {count}" for name, count in store.sources.items())
        lines.append(f"Pool: {sum(store.sources.values())} usable rows ({pool}); {report.budget} of them picked.")
    lines.append(
        f"Every run: LoRA rank {recipe.lora_rank} on {', '.join(recipe.lora_targets)}, peak rate {recipe.lr:g}, "
        f"batches of {recipe.batch_size}, {recipe.epochs} epochs, from the base model in {recipe.dtype}; the epoch is "
        "chosen on the targets."
    )
    sets = [f"{_name(key)} {about.targets} targets, {about.heldout} held out" for key, about in report.sets.items()]
    return "## Setting\n\n" + " ".join([*lines, "Sets: " + "; ".join(sets) + "."])


def _losses(report: Report) -> str:
    means = summary(report)
    lines = [
        [f"`{method}`", *(_with_spread(means, name, method, "loss", "{:.3f}") for name in report.sets)]
        for method in _methods(report)
    ]
    text = "Mean cross-entropy of held-out answers, nats a token; mean (standard deviation over seeds, where several)."
    return f"## Held-out loss\n\n{text}\n\n" + table(["method", *map(_name, report.sets)], lines)


def _pairs(report: Report) -> str:
    lines = [
        [
            _name(row.target_set),
            f"`{row.method}`",
            f"{row.against_random:+.3f}",
            "" if np.isnan(row.against_random_sd) else f"{row.against_random_sd:.3f}",
            f"{row.better} of {row.paired}",
        ]
        for row in summary(report).itertuples()
        if row.paired and row.method != ZERO_SHOT
    ]
    text = "The loss minus random's loss with the same training seed: below zero is better than chance."
    return f"## Against random, paired over seeds\n\n{text}\n\n" + table(
        ["set", "method", "difference", "sd", "lower on"], lines
    )


def _others(core: Report) -> str:
    """What LESS finds from other stores, compared with the core's."""
    lines = [_store_line("the core's", "less", core, core, PAPER["less"])]
    for other in OTHER_STORES:
        path = REPORTS / f"{other.name}.json"
        report = read_report(path) if path.is_file() else None
        for method, paper in other.methods.items():
            if report and any(run.method == method for run in report.runs):
                lines.append(_store_line(other.what, method, report, core, paper))
    if len(lines) == 1:
        return ""
    text = (
        "Held-out loss of training seed 0 when a store that differs in one thing picks the rows, and in brackets the "
        "mean answer length of its picks in tokens and how many of them LESS also picks from the core's store (a draw "
        "at random: a tenth). Then the paper's scores for the same change, in percent (its tables 9 and 11 warm up on "
        "the whole pool)."
    )
    head = ["store", "method", *map(_name, ORDER), *(f"paper's {_name(name)}" for name in ORDER)]
    return f"## Other stores (the paper's tables 5, 9 and 11)\n\n{text}\n\n" + table(head, lines)


def _store_line(what: str, method: str, report: Report, core: Report, paper: Scores) -> list[str]:
    cells = []
    for name in ORDER:
        run = next((r for r in report.runs if (r.target_set, r.method, r.seed) == (name, method, 0)), None)
        there, own = core.picks.get(run_key(name, "less", 0)), report.picks.get(run_key(name, method, 0))
        about = f", {len({*own.ids} & {*there.ids})} of {len(own.ids)}" if there and own and report != core else ""
        cells.append(f"{run.best_loss:.3f} ({run.answer_tokens:.0f}{about})" if run else "")
    return [what, f"`{method}`", *cells, *map(str, paper)]


def _scores(report: Report) -> str:
    means = summary(report)
    lines = []
    for method in _methods(report):
        own = [_with_spread(means, name, method, "score", "{:.1f}", 100) for name in ORDER]
        lines.append([f"`{method}`", *own, *(f"{value}" for value in PAPER.get(method, NONE))])
    metrics = ", ".join(f"{_name(key)} {about.metric}" for key, about in report.sets.items())
    text = f"Answers that the tuned model writes itself, in percent ({metrics}). Beside them the paper's."
    head = ["method", *map(_name, ORDER), *(f"paper's {_name(name)}" for name in ORDER)]
    return f"## Answers\n\n{text}\n\n" + table(head, lines)


def _epochs(report: Report) -> str:
    lines = [
        [_name(run.target_set), f"`{run.method}`", str(run.seed), " → ".join(f"{loss:.3f}" for loss in losses)]
        for run in report.runs
        if run.method in (ZERO_SHOT, RANDOM, "less")
        for losses in [run.loss_by_epoch]
    ]
    head = ["set", "method", "seed", "held-out loss by epoch"]
    return "## Loss by epoch (the paper's figure 5)\n\n" + table(head, lines)


def _law(report: Report) -> str:
    if not report.stores:
        return ""
    frame = pd.DataFrame(report.stores[0].correlation)
    lines = [
        [str(source) or "all", *("" if pd.isna(r) else f"{r:+.2f}" for r in row)]
        for source, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    text = "Correlation of log gradient norm with log answer length over the pool, by source and checkpoint."
    return f"## The law of figure 3\n\n{text}\n\n" + table(["source", *frame.columns], lines)


def _shares(report: Report) -> str:
    sources = sorted({source for run in report.runs for source in run.sources if run.method not in ("validation",)})
    lines = []
    for name in report.sets:
        for method in _methods(report):
            run = next((r for r in report.runs if (r.target_set, r.method, r.seed) == (name, method, 0)), None)
            if run and run.store:
                shares = [f"{100 * run.sources.get(source, 0) / run.rows:.0f} %" for source in sources]
                lines.append([_name(name), f"`{method}`", *shares, f"{run.answer_tokens:.0f}"])
    text = (
        "Share of each source among the picks of seed 0, and their mean answer length in tokens. The paper: LESS takes "
        "mostly FLAN v2 for MMLU, Dolly for TyDiQA, CoT for BBH."
    )
    head = ["set", "method", *sources, "answer tokens"]
    return f"## What was picked (the paper's figure 10 and table 12)\n\n{text}\n\n" + table(head, lines)


def _methods(report: Report) -> list[str]:
    return list(dict.fromkeys(run.method for run in report.runs))


def _with_spread(means: pd.DataFrame, name: str, method: str, what: str, form: str, times: float = 1) -> str:
    selected = means[(means["target_set"] == name) & (means["method"] == method)]
    if selected.empty or selected[what].isna().all():
        return ""
    value, spread = selected[what].iloc[0] * times, selected[f"{what}_sd"].iloc[0] * times
    return form.format(value) + ("" if np.isnan(spread) else f" ({form.format(spread)})")


def _name(key: str) -> str:
    return NAMES.get(key, key)


def _agreement(measured: dict[str, Any]) -> list[str]:
    if not measured:
        return []
    shared = [
        [
            _name(one["targets"]),
            f"`{one['method']}`",
            f"{one['shared']:.2f}",
            f"{one['chance']:.2f}",
            f"{one['spearman']:.2f}",
        ]
        for one in measured["overlap"]
    ]
    identity = [
        [
            _name(one["targets"]),
            f"{one['hold']} of {one['rows']} ({one['tokens']} tokens)",
            ", ".join(f"{off:.3f}" for off in one["worst_of_bound"].values()),
            f"{one['pearson']:.2f}",
            f"{one['spearman']:.2f}",
        ]
        for one in measured["tokens"]
    ]
    sample = measured["tokens"][0]["sample"]
    return [
        f"## Who picks what LESS picks\n\nOf the best {measured['top']}; chance: what a random draw shares; Spearman's "
        "correlation of the ranks over all rows.\n\n"
        + table(["set", "method", "shared", "chance", "Spearman"], shared),
        "## Influence by token\n\nLESS's best rows of each set. The mean over an answer's tokens against the backward "
        "pass's inner product: the farthest of all rows, as a part of the bound (1e-3 ‖u‖‖g‖), by checkpoint. Then the "
        f"plain gradient's cosines against LESS's scores over {sample} rows, for the subtask of the best row.\n\n"
        + table(["set", "identity holds", "worst, of the bound", "Pearson", "Spearman"], identity),
    ]
