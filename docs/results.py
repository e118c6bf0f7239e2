"""Does LESS help? The paper's comparison on a small scale.

    python docs/results.py --data DIR [--work FOLDER] [--minutes M]

DIR holds pool/*.jsonl, and mmlu.jsonl, bbh.jsonl and tydiqa.jsonl in both targets/ and eval/: records with `messages`
and, except in the pool, `subtask`; those in eval/ are judged by `answer` or `answers`, and prompted with
`messages_zeroshot` if they have it. The reports in docs/results/ belong to one DIR: remove them to use another. FOLDER
keeps the prepared files and the stores. Each run is added to docs/results/core.json when it ends; the same command
makes the missing runs, and needs no store for those whose picks are already in the report.
The picks of other builds (no warmup, another d, ...) are compared in the same way, with a store and a report each;
--only NAME makes that report alone. The measured part of docs/results.md is written from the reports present in
docs/results/ (python docs/results.py --write).
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_page import CORE, OTHER_STORES, REPORTS, write_page

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.conversation import Conversation, Message
from gradsift.data.encode import Encoder
from gradsift.data.pool import read_rows
from gradsift.data.targets import require_targets
from gradsift.evaluation.heldout import read_heldout
from gradsift.evaluation.plan import EvaluationSet
from gradsift.evaluation.report import ALWAYS, VALIDATION, ZERO_SHOT, Recipe, Report, read_report, run_key
from gradsift.evaluation.run import evaluate
from gradsift.model import load
from gradsift.model.lora import attach_lora
from gradsift.runtime import atomic
from gradsift.runtime.device import resolve_dtype
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.paths import cache_home
from gradsift.runtime.progress import Cancelled, Progress
from gradsift.training.warmup import snapshot

HERE = Path(__file__).resolve().parent
SETS = ("mmlu", "bbh", "tydiqa")
ONE_EACH = ("mmlu", "bbh")  # one target of every subtask; TyDiQA has only one
PER_SOURCE, LONGEST, HELD_OUT, LONGEST_HELD_OUT, BUDGET, SEED = 150, 384, 40, 640, "10%", 0
LONGEST_TARGET = 1024  # of MMLU's and BBH's; every run reads a target once per epoch, and some are very long
THREE = ("zero-shot", "random", "less")  # in three training seeds; the others in one
ONE = ("bm25", "dsir", "rds", "rds+", "validation", "less:aggregate=round-robin", "less:diverse=true")
ONE += ("less:similarity=dot", "less:without_checkpoints=epoch-2", "full")  # the paper's tables 12, 6 and 2
CONFIG = BuildConfig(
    model="smollm2",
    template=load.demo_template().read_text(encoding="utf-8"),
    max_length=LONGEST,
    warmup_fraction=0.2,
    epochs=2,
    lora_rank=16,
    lr=2e-4,
    batch_size=8,
    dtype="bf16",  # base weights, as on a GPU; LoRA stays in fp32
    seed=SEED,
)
RECIPE = Recipe.of(CONFIG, epochs=3)


class Stopwatch(Progress):
    """A progress that asks its run to stop when the minutes are up."""

    def __init__(self, minutes: float) -> None:
        super().__init__()
        self.until = time.monotonic() + 60 * minutes

    def check(self) -> None:
        self._stopping = self._stopping or time.monotonic() > self.until
        super().check()


def prepare(data: Path, work: Path) -> None:
    """Draw the rows of the pool, the targets and the held-out sets, the same on every machine."""
    encoder = Encoder(load.load_tokenizer(CONFIG.model), CONFIG.template, CONFIG.template_options)
    for name in ("pool", "targets", "eval"):
        (work / name).mkdir(parents=True, exist_ok=True)
    for path in sorted((data / "pool").glob("*.jsonl")):
        _write(work / "pool" / path.name, _drawn(_fitting(path, encoder, LONGEST), PER_SOURCE))
    for name in SETS:
        longest = LONGEST_TARGET if name in ONE_EACH else load.model_window(CONFIG.model)
        targets = list(_fitting(data / "targets" / f"{name}.jsonl", encoder, longest))
        if name in ONE_EACH:
            targets = list({record["subtask"]: record for record in reversed(targets)}.values())[::-1]
        _write(work / "targets" / f"{name}.jsonl", targets)
        rows = list(_fitting(data / "eval" / f"{name}.jsonl", encoder, LONGEST_HELD_OUT))
        _write(work / "eval" / f"{name}.jsonl", _spread(rows, HELD_OUT))


def _fitting(path: Path, encoder: Encoder, longest: int) -> Iterator[dict[str, Any]]:
    """A file's records that have something to learn within `longest` tokens, zero-shot where they have that form."""
    for row in (row for row in read_rows([path]) if not row.reason):
        record = json.loads(row.raw)
        if "messages_zeroshot" in record:
            record["messages"] = record.pop("messages_zeroshot")
        messages = tuple(Message(turn["role"], turn["content"]) for turn in record["messages"])
        encoded = encoder.encode(Conversation(messages, prefix=record.get("prefix", "")))
        if len(encoded.ids) <= longest and encoded.n_answer:
            yield record


def _drawn(records: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    rows = list(records)
    chosen = np.random.default_rng(SEED).choice(len(rows), min(count, len(rows)), replace=False)
    return [rows[index] for index in sorted(chosen.tolist())]


def _spread(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """`count` rows, taken from the subtasks in turn, each in a seeded order."""
    rng = np.random.default_rng(SEED)
    by_subtask: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for index in rng.permutation(len(rows)).tolist():
        by_subtask[rows[index]["subtask"]].append(rows[index])
    order = rng.permutation(sorted(by_subtask)).tolist()
    turns = [by_subtask[name][turn] for turn in range(count) for name in order if turn < len(by_subtask[name])]
    return turns[:count]


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        atomic.write_text(path, text)


def run(data: Path, work: Path, only: str | None, minutes: float) -> None:
    """Make what is missing in the reports (or in report `only`) until the minutes are up."""
    prepare(data, work)
    progress = Stopwatch(minutes)
    sets = [
        EvaluationSet(
            name, require_targets(work / "targets" / f"{name}.jsonl"), read_heldout(work / "eval" / f"{name}.jsonl")
        )
        for name in SETS
    ]
    with progress.running():
        if only in (None, CORE.stem):
            _run(CORE, {**dict.fromkeys(THREE, 3), **dict.fromkeys(ONE, 1)}, sets, CONFIG, work / "store", progress)
        for other in OTHER_STORES:
            if only in (None, other.name):
                report = REPORTS / f"{other.name}.json"
                if not report.exists():
                    _same_for_any_store(read_report(CORE)).save(report)
                changes = dict(other.changes)
                if other.untrained:
                    changes["checkpoints"] = (str(_untrained(work / "untrained")),)
                config, methods = CONFIG.model_copy(update=changes), dict.fromkeys(other.methods, 1)
                _run(report, methods, sets, config, work / f"store-{other.name}", progress)


def _run(
    report: Path,
    methods: dict[str, int],
    sets: list[EvaluationSet],
    config: BuildConfig,
    store: Path,
    progress: Progress,
) -> None:
    pool = sorted((store.parent / "pool").glob("*.jsonl"))
    picks = read_report(report).picks if report.exists() else {}
    if any(key not in picks for key in _picking(methods)):
        build(pool, store, config, progress=progress)
    options = {"budget": BUDGET, "recipe": RECIPE, "pool": pool, "progress": progress}
    evaluate([store], sets, report, methods=methods, seeds=1, **options)


def _same_for_any_store(core: Report) -> Report:
    """The core's runs that would be the same with any store: every report compares its runs with these."""
    runs = [run for run in core.runs if run.method in ALWAYS and run.seed == 0]
    picks = {run.key: core.picks[run.key] for run in runs if run.store}
    return core.model_copy(update={"runs": runs, "picks": picks, "planned": len(runs)})


def _untrained(folder: Path) -> Path:
    """A checkpoint of LoRA before training, B all zeros, for gradients of a model without warmup."""
    if not folder.is_dir():
        dtype = resolve_dtype(CONFIG.dtype, torch.device("cpu"))
        model = attach_lora(load.load_model(CONFIG.model, dtype, torch.device("cpu")).model, CONFIG)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=0.0)
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizer.step()  # changes no weight, but makes the moments that a checkpoint needs
        snapshot(model, optimizer, CONFIG.lr, CONFIG.model).save(folder)
    return folder


def _picking(methods: dict[str, int]) -> Iterator[str]:
    """Keys of the runs whose rows a store picks."""
    for method, seeds in {"random": 1, **methods}.items():
        if method not in (ZERO_SHOT, VALIDATION):
            yield from (run_key(name, method, seed) for name in SETS for seed in range(seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="pool/, targets/ and eval/")
    parser.add_argument("--work", type=Path, default=cache_home() / "results", help="prepared files and the stores")
    names = (CORE.stem, *(other.name for other in OTHER_STORES))
    parser.add_argument("--only", choices=names, help="make this report alone")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after about this many minutes")
    parser.add_argument("--write", action="store_true", help="only write the page from the reports")
    arguments = parser.parse_args()
    try:
        if not arguments.write:
            if arguments.data is None:
                parser.error("--data DIR is needed to run anything")
            run(arguments.data, arguments.work, arguments.only, arguments.minutes)
    except Cancelled as stop:
        print(stop)
    except GradsiftError as error:
        parser.exit(1, f"{error}\n")
    finally:
        if CORE.exists():
            write_page(HERE / "results.md")


if __name__ == "__main__":
    main()
