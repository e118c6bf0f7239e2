"""docs/results.md, written from a report of `gradsift evaluate` alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from gradsift import atomic
from gradsift.evaluation import RANDOM, ZERO_SHOT, Report, read_report, summary

NAMES = {"mmlu": "MMLU", "bbh": "BBH", "tydiqa": "TyDiQA"}
PAPER = {  # LESS, table 3 (Llama-2-7B, 5 % of 270,679 rows; accuracy, exact match, F1)
    "random": (46.5, 38.9, 52.7),
    "bm25": (47.6, 39.8, 52.7),
    "dsir": (46.1, 36.8, 44.5),
    "rds": (45.0, 36.7, 46.8),
    "less": (50.2, 41.5, 56.2),
}
HEAD = """# Does it help? Results on real data

Written by `python docs/results.py --data DIR` from `docs/results/core.json`, and from nothing else. The comparison of
the paper's table 3 in small: SmolLM2-135M on a CPU in place of Llama-2-7B, hundreds of rows in place of hundreds of
thousands. Lower losses are better. Figures of the paper are marked as the paper's.
"""


def write_page(report: Path, out: Path) -> None:
    """Write the page of what the report holds so far."""
    found = read_report(report)
    parts = [HEAD, _setting(found), _losses(found), _pairs(found), _scores(found), _epochs(found), _law(found)]
    atomic.write_text(out, "\n".join(part.rstrip() + "\n" for part in [*parts, _shares(found)]))


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
    table = summary(report)
    lines = [
        [f"`{method}`", *(_with_spread(table, name, method, "loss", "{:.3f}") for name in report.sets)]
        for method in _methods(report)
    ]
    text = "Mean cross-entropy of held-out answers, nats a token; mean (standard deviation over seeds, where several)."
    return f"## Held-out loss\n\n{text}\n\n" + _table(["method", *map(_name, report.sets)], lines)


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
    text = "Loss less random's loss of the same training seed: below zero is better than chance."
    return f"## Against random, paired over seeds\n\n{text}\n\n" + _table(
        ["set", "method", "difference", "sd", "lower on"], lines
    )


def _scores(report: Report) -> str:
    table, order = summary(report), ("mmlu", "bbh", "tydiqa")
    lines = []
    for method in _methods(report):
        own = [_with_spread(table, name, method, "score", "{:.1f}", 100) for name in order]
        lines.append([f"`{method}`", *own, *(f"{value}" for value in PAPER.get(method, ("", "", "")))])
    metrics = ", ".join(f"{_name(key)} {about.metric}" for key, about in report.sets.items())
    text = f"Answers that the tuned model writes itself, in percent ({metrics}). Beside them the paper's table 3."
    head = ["method", *map(_name, order), *(f"paper's {_name(name)}" for name in order)]
    return f"## Answers\n\n{text}\n\n" + _table(head, lines)


def _epochs(report: Report) -> str:
    lines = [
        [_name(run.target_set), f"`{run.method}`", str(run.seed), " → ".join(f"{loss:.3f}" for loss in losses)]
        for run in report.runs
        if run.method in (ZERO_SHOT, RANDOM, "less")
        for losses in [run.loss_by_epoch]
    ]
    head = ["set", "method", "seed", "held-out loss by epoch"]
    return "## Loss by epoch (the paper's figure 5)\n\n" + _table(head, lines)


def _law(report: Report) -> str:
    if not report.stores:
        return ""
    frame = pd.DataFrame(report.stores[0].correlation)
    lines = [
        [str(source) or "all", *("" if pd.isna(r) else f"{r:+.2f}" for r in row)]
        for source, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    text = "Correlation of log gradient norm with log answer length over the pool, by source and checkpoint."
    return f"## The law of figure 3\n\n{text}\n\n" + _table(["source", *frame.columns], lines)


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
    return f"## What was picked (the paper's figure 10 and table 12)\n\n{text}\n\n" + _table(head, lines)


def _methods(report: Report) -> list[str]:
    return list(dict.fromkeys(run.method for run in report.runs))


def _with_spread(table: pd.DataFrame, name: str, method: str, what: str, form: str, times: float = 1) -> str:
    found = table[(table["target_set"] == name) & (table["method"] == method)]
    if found.empty or found[what].isna().all():
        return ""
    value, spread = found[what].iloc[0] * times, found[f"{what}_sd"].iloc[0] * times
    return form.format(value) + ("" if np.isnan(spread) else f" ({form.format(spread)})")


def _name(key: str) -> str:
    return NAMES.get(key, key)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *lines))
