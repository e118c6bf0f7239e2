"""Does selection help here? Trains on each method's picks with one recipe and compares the results on held-out rows.

Every run starts from the base model. Each finished run is added to the report (report.py), and the same command resumes
with the missing ones. The report keeps picks as pool ids, so with the pool's files at hand a run no longer needs the
store.
"""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from gradsift.analysis.norms import correlations, norm_table
from gradsift.data.encode import Encoded
from gradsift.data.pool import Row, read_rows
from gradsift.data.reading import reading_of
from gradsift.data.targets import TargetError
from gradsift.datastore.store import Store
from gradsift.evaluation.finetune import Measure, Measured, finetune, trainable
from gradsift.evaluation.plan import EvaluationSet, MethodSpec, Planned, store_recipe
from gradsift.evaluation.report import (
    ALWAYS,
    FULL,
    VALIDATION,
    ZERO_SHOT,
    EvaluationError,
    Picks,
    Recipe,
    Report,
    Run,
    StoreAbout,
    read_report,
)
from gradsift.model.base import BaseModel
from gradsift.runtime.device import default_device, exclusive, resolve_dtype
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_json, hash_text
from gradsift.runtime.locks import waiting
from gradsift.runtime.paths import cache_home
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import make_choices
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.target_features import encode_target
from gradsift.selection.budget import Budget
from gradsift.selection.picks import make_picks


def evaluate(
    stores: Sequence[str | Path],
    sets: Sequence[EvaluationSet],
    out: str | Path,
    *,
    methods: Sequence[str] | Mapping[str, int] = ("less",),
    budget: str = "5%",
    seeds: int = 3,
    recipe: Recipe | None = None,
    pool: Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Report:
    """Train on every method's picks for every set and seed, and keep the results in the report `out`.

    Zero-shot, random and the targets themselves (`validation`) are always among the methods; `full` is the whole pool.
    stores: seed k uses store k modulo their number (in the paper every seed has its own warmup). methods: names, or a
    mapping from names to numbers of seeds. recipe: by default that of the first store's warmup. pool: files to read
    texts from by id; a store is then opened only if picks are missing.

    Raises:
        EvaluationError: `out` is the report of another evaluation, or holds another store's picks; or a run has no
            rows or diverges. TargetError: a row cannot be used. StoreError, UsageError, ModelError: a store, an option
            or the model cannot be used.
    """
    Budget.parse(budget)
    seeds_of = methods if isinstance(methods, Mapping) else dict.fromkeys(methods, seeds)
    seeds_of = {**dict.fromkeys(ALWAYS, seeds), **seeds_of}
    specs = {MethodSpec.parse(text): 1 if text == ZERO_SHOT else count for text, count in seeds_of.items()}
    progress = progress or Progress(quiet=True)
    if len({one.name for one in sets}) < len(sets):
        raise UsageError("Two target sets have the same name: rename a file.")
    out = Path(out).resolve()
    lock = cache_home() / "locks" / f"report-{hash_text(str(out))[:16]}.lock"
    with waiting(lock, f"Waiting for {out}: another evaluation is writing it", progress):
        return _Evaluation([Path(path) for path in stores], sets, out, specs, budget, recipe, pool, progress).run()


class _Evaluation:
    def __init__(
        self,
        paths: list[Path],
        sets: Sequence[EvaluationSet],
        out: Path,
        specs: dict[MethodSpec, int],
        budget: str,
        recipe: Recipe | None,
        pool: Sequence[str | Path],
        progress: Progress,
    ) -> None:
        self.paths, self.sets, self.out, self.specs = paths, sets, out, specs
        self.budget, self.pool, self.progress = budget, pool, progress
        before = read_report(out) if out.exists() else None
        self.device = default_device()
        self.recipe = self._settled(recipe or (before.recipe if before else store_recipe(self._store(0))), before)
        dtype = resolve_dtype(self.recipe.dtype, self.device)
        recipe = self.recipe
        self.model = BaseModel(recipe.model, recipe.template, recipe.template_options, dtype, self.device)
        self.encoder, self.window = self.model.encoder, self.model.window
        self.before = before

    def _settled(self, recipe: Recipe, before: Report | None) -> Recipe:
        """The recipe with `auto` resolved to a dtype; a report that is continued elsewhere keeps its own."""
        if recipe.dtype != "auto":
            return recipe
        dtype = "bf16" if resolve_dtype("auto", self.device) == torch.bfloat16 else "fp32"
        return recipe.model_copy(update={"dtype": before.recipe.dtype if before else dtype})

    def run(self) -> Report:
        measures = {one.name: self._encoded(one) for one in self.sets}
        plan = self._plan()
        self.report = self._begin(self.model.fingerprint, plan)
        done = {run.key for run in self.report.runs}
        todo = [planned for planned in plan if planned.key not in done]
        # Scoring locks the device and loads the store's model there, so it has to come before this run locks it.
        self._pick([planned for planned in todo if planned.key not in self.report.picks])
        if not todo:
            return self.report
        with exclusive(self.device, self.progress):
            self.model.load(self.progress)
            for alike in self._alike(todo):
                runs = self._train(alike, [measures[planned.set.name] for planned in alike])
                self._keep(runs=[*self.report.runs, *runs])
        return self.report

    def _plan(self) -> list[Planned]:
        return [
            Planned(one, spec, seed)
            for seed in range(max(self.specs.values()))
            for one in self.sets
            for spec, seeds in self.specs.items()
            if seed < seeds
        ]

    def _begin(self, model_fingerprint: str, plan: list[Planned]) -> Report:
        """The report at `out` if it belongs to this evaluation, or a new one."""
        sets = {one.name: one.about for one in self.sets}
        fresh = Report(
            recipe=self.recipe,
            model_fingerprint=model_fingerprint,
            budget=self.budget,
            sets=sets,
            stores=[],
            picks={},
            planned=len(plan),
            runs=[],
        )
        if self.before is None:
            return fresh
        before, same = self.before, ("recipe", "model_fingerprint", "budget")
        differing = [name for name in same if getattr(before, name) != getattr(fresh, name)]
        differing += [f"target set {name}" for name, about in before.sets.items() if sets.get(name, about) != about]
        if differing:
            raise EvaluationError(
                f"{self.out} is the report of another evaluation ({', '.join(differing)} differ): choose another --out."
            )
        for planned in plan if not self.pool else ():  # with the pool's files, kept picks need no store
            picks = before.picks.get(planned.key)
            if picks and picks.store != self._store(planned.seed).fingerprint:
                raise EvaluationError(
                    f"{self.out} holds what another store picked for {planned.key} (the pool has grown, or the stores "
                    "have changed or are in another order): choose another --out."
                )
        keys = {run.key for run in before.runs} | {planned.key for planned in plan}
        return before.model_copy(update={"sets": {**before.sets, **sets}, "planned": len(keys)})

    def _keep(self, **update: Any) -> None:
        self.report = self.report.model_copy(update=update)
        self.report.save(self.out)

    # -- picks --------------------------------------------------------------------------------------------------------

    def _pick(self, todo: list[Planned]) -> None:
        """Score and pick for the runs whose picks are missing."""
        for planned in todo:
            if planned.spec.name in (ZERO_SHOT, VALIDATION):
                continue
            store = self._store(planned.seed)
            ids = self._select(store, planned)
            picks = Picks(store=store.fingerprint, ids=ids, content=_content(store_rows(store, ids)))
            stores = self.report.stores
            if store.fingerprint not in [about.fingerprint for about in stores]:
                stores = [*stores, _about(store)]
            self._keep(picks={**self.report.picks, planned.key: picks}, stores=stores)

    def _select(self, store: Store, planned: Planned) -> list[str]:
        pool = store.pool()
        if planned.spec.name == FULL:
            return pool.loc[store.scored_rows, "id"].tolist()
        choices = make_choices(**{"seed": planned.seed, **planned.spec.choices})
        scoring = score_targets(store, planned.set.targets, [planned.spec.name], choices.gradient, self.progress)
        picks = make_picks(store, scoring, planned.spec.name, Budget.parse(self.budget), choices)
        return pool.loc[picks.rows, "id"].tolist()

    def _store(self, seed: int) -> Store:
        path = self.paths[seed % len(self.paths)]
        if path not in self._opened:
            store = Store.open(path)
            store.require_complete()
            self._opened[path] = store
        return self._opened[path]

    @cached_property
    def _opened(self) -> dict[Path, Store]:
        return {}

    # -- runs ---------------------------------------------------------------------------------------------------------

    def _alike(self, todo: list[Planned]) -> list[list[Planned]]:
        """Groups of runs that train on the same rows in the same way and differ only in what is measured.

        These are random's and the whole pool's runs for every set, and the runs of methods with the same picks.
        """
        groups: dict[Any, list[Planned]] = {}
        for planned in todo:
            picks = self.report.picks.get(planned.key)
            groups.setdefault((planned.seed, *picks.ids) if picks else planned.key, []).append(planned)
        return list(groups.values())

    def _train(self, alike: list[Planned], measures: list[Measure]) -> list[Run]:
        """Train once, and measure on the set of each run."""
        first, start = alike[0], time.monotonic()
        usable = self._rows(first, measures[0])
        what = ", ".join(f"{planned.spec.text} for {planned.set.name}" for planned in alike) + f", seed {first.seed}"
        number = len(self.report.runs) + 1
        numbers = f"Run {number}" if len(alike) == 1 else f"Runs {number} to {number + len(alike) - 1}"
        label = f"{numbers} of {self.report.planned}: {what}"
        if first.spec.name == ZERO_SHOT:
            self.progress.stage("train", label, 1, "measurement")
            by_epoch = [[measures[0](self.model.module)]]
            self.progress.advance()
        else:
            config = self.recipe.config(first.seed)
            measure = lambda model: [one(model) for one in measures]  # noqa: E731
            by_epoch = finetune(self.model.module, [one for _, one in usable], config, measure, self.progress, label)
        if not all(math.isfinite(loss) for epoch in by_epoch for one in epoch for loss in (one.target_loss, one.loss)):
            raise EvaluationError(
                f"Training on {what} diverged: the loss is no longer finite. Choose a lower --lr (now "
                f"{self.recipe.lr:g}) and another --out."
            )
        seconds = (time.monotonic() - start) / len(alike)
        return [
            _run(planned, list(epochs), usable, self._picks(planned).store, seconds)
            for planned, epochs in zip(alike, zip(*by_epoch, strict=True), strict=True)
        ]

    def _rows(self, planned: Planned, measure: Measure) -> list[tuple[Row, Encoded]]:
        """The rows that a run trains on: those with an answer within the recipe's length."""
        if planned.spec.name == ZERO_SHOT:
            return []
        if planned.spec.name == VALIDATION:  # in full length, as in scoring
            return list(zip(planned.set.targets, measure.targets, strict=True))
        rows = self._texts(planned, self._picks(planned))
        usable = trainable(self.encoder, rows, self._max_length)
        what = f"{len(rows)} rows that {planned.spec.text} picked for {planned.set.name}"
        if not rows:
            raise EvaluationError(f"{planned.spec.text} picked no row for {planned.set.name}: raise the budget.")
        if not usable:
            raise EvaluationError(
                f"None of the {what} can be trained on: the template of {self.recipe.model} refuses them, or no answer "
                f"begins within {self._max_length} tokens."
            )
        if len(usable) < len(rows):
            self.progress.note(f"{len(rows) - len(usable)} of the {what} cannot be trained on and are left out.")
        return usable

    def _picks(self, planned: Planned) -> Picks:
        return self.report.picks.get(planned.key, Picks(store="", ids=[]))

    @property
    def _max_length(self) -> int:
        return min(self.recipe.max_length, self.window)

    def _texts(self, planned: Planned, picks: Picks) -> list[Row]:
        if not self.pool:
            return store_rows(self._store(planned.seed), picks.ids)
        missing = [name for name in picks.ids if name not in self._pool_rows]
        if missing:
            raise EvaluationError(f"The given pool lacks the picked row {missing[0]!r}: give the store's pool.")
        rows = [self._pool_rows[name] for name in picks.ids]
        if picks.content not in ("", _content(rows)):
            raise EvaluationError(
                f"The given pool has other text than when {planned.key} was picked (a row's id may be its line): give "
                "the store's pool as it was, or choose another --out."
            )
        return rows

    @cached_property
    def _pool_rows(self) -> dict[str, Row]:
        names = {name for picks in self.report.picks.values() for name in picks.ids}
        reading = reading_of(self.recipe.config(0))
        return {row.id: row for row in read_rows(list(self.pool), reading=reading) if row.id in names}

    def _encoded(self, one: EvaluationSet) -> Measure:
        """Targets and held-out rows as tokens.

        Raises:
            TargetError: a row is too long for the model, or has nothing to learn.
        """
        return Measure(
            targets=self._all_encoded(one.targets, f"Target of {one.name}"),
            heldout=one.heldout,
            encoded=self._all_encoded([h.row for h in one.heldout], f"Held-out row of {one.name}"),
            tokenizer=self.encoder.tokenizer,
            token_budget=self.recipe.config(0).resolve_token_budget(self.device.type),
        )

    def _all_encoded(self, rows: Iterable[Row], what: str) -> list[Encoded]:
        result = []
        for number, row in enumerate(rows, start=1):
            encoded, reason = encode_target(self.encoder, self.window, row)
            if encoded is None or reason:
                raise TargetError(f"{what}, number {number} ({row.id}): {reason}; fix or remove it and run again.")
            result.append(encoded)
        return result


def store_rows(store: Store, ids: Sequence[str]) -> list[Row]:
    """Rows of a store's pool with their text, in the order of `ids`."""
    pool = store.pool()
    numbers = pd.Series(pool.index, index=pool["id"]).loc[list(ids)]
    entries, texts = pool.loc[numbers], store.texts(numbers.to_numpy())
    return [
        Row(
            file=entry.file, line=int(entry.line), raw=text.raw, source=entry.source, id=entry.id, task=entry.task,
            subtask="", messages=text.conversation.messages, prefix=text.conversation.prefix, schema=entry.schema,
            reason="", tools=text.conversation.tools,
        )
        for entry, text in zip(entries.itertuples(index=False), texts.itertuples(index=False), strict=True)
    ]  # fmt: skip


def _content(rows: Sequence[Row]) -> str:
    return hash_json([asdict(row.conversation) for row in rows])[:16]


def _run(planned: Planned, epochs: list[Measured], rows: list[tuple[Row, Encoded]], store: str, seconds: float) -> Run:
    best = min(range(len(epochs)), key=lambda epoch: epochs[epoch].target_loss)
    answers = [encoded.n_answer for _, encoded in rows]
    return Run(
        target_set=planned.set.name,
        method=planned.spec.text,
        seed=planned.seed,
        store=store,
        rows=len(rows),
        answer_tokens=sum(answers) / len(answers) if answers else 0.0,
        sources=dict(Counter(row.source for row, _ in rows)),
        target_loss_by_epoch=[one.target_loss for one in epochs],
        loss_by_epoch=[one.loss for one in epochs],
        score_by_epoch=[one.score for one in epochs],
        best_epoch=best + (planned.spec.name != ZERO_SHOT),
        best_loss=epochs[best].loss,
        score=epochs[best].score,
        seconds=round(seconds, 1),
    )


def _about(store: Store) -> StoreAbout:
    by_norm = correlations(norm_table(store))
    by_norm = by_norm[by_norm["kind"] == "grad_norm"]
    correlation: dict[str, dict[str, float | None]] = {name: {} for name in store.epochs}
    for line in by_norm.itertuples(index=False):
        correlation[line.epoch][line.source] = None if pd.isna(line.r) else float(line.r)
    return StoreAbout(
        fingerprint=store.fingerprint,
        model=store.manifest.config.model,
        seed=store.manifest.config.seed,
        sources={one.source: one.usable for one in store.manifest.sources},
        correlation=correlation,
    )
