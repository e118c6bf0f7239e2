"""The two questions people ask of a store: how does every row score, and which rows should I train on?

`ranked` and `picked` answer them from a kept scoring under the `Choices` of choices.py; `score` and `select` go all the
way from targets to files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradsift import atomic
from gradsift.choices import Choices, make_choices
from gradsift.errors import UsageError
from gradsift.export import Pick, export_picks
from gradsift.index import has_index, near
from gradsift.influence import Scoring, score_targets
from gradsift.pool import Row
from gradsift.progress import Progress
from gradsift.selection import Budget, Ranking, count_within, length_matched, rank, scores_table
from gradsift.store import Store

_BATCH = 5000  # picks lie anywhere, so that each batch may read the whole pool: few batches, none too large
_ALWAYS_TOLD = {"aggregate", "similarity", "target_pooling", "gradient", "seed"}


@dataclass(frozen=True)
class Traits:
    """What choices look at beside the scores, aligned with the scored rows.

    rows: (n,) pool row numbers. n_tokens, n_answer: (n,) tokens of the row and of its answer. source: (n,) number of
    its source. near: (n,) a number that near-duplicates share, or None where the pool has no index yet.
    """

    rows: np.ndarray
    n_tokens: np.ndarray
    n_answer: np.ndarray
    source: np.ndarray
    near: np.ndarray | None


def traits(store: Store, scoring: Scoring) -> Traits:
    """Read the traits of every scored row."""
    pool = store.pool().loc[scoring.rows]
    n_answer = pool["n_answer_tokens"].to_numpy()
    return Traits(
        rows=scoring.rows,
        n_tokens=pool["n_prompt_tokens"].to_numpy() + n_answer,
        n_answer=n_answer,
        source=np.unique(pool["source"].to_numpy(str), return_inverse=True)[1],
        near=near(store)[scoring.rows] if has_index(store) else None,
    )


def ranked(scoring: Scoring, method: str, choices: Choices, about: Traits) -> Ranking:
    """Rank every scored row by one method.

    Raises:
        UsageError: a choice names what the scoring does not hold, or leaves nothing. StoreError: not scored so.
    """
    left = scoring.without(choices.without_targets, choices.without_subtasks, choices.without_checkpoints)
    ranking = rank(
        left,
        method,
        aggregate=choices.aggregate,
        similarity=choices.similarity,
        target_pooling=choices.target_pooling,
        gradient=choices.gradient,
        seed=choices.seed,
    )
    return length_matched(ranking, about.n_answer) if choices.length_matched else ranking


def picked(ranking: Ranking, budget: Budget, choices: Choices, about: Traits) -> np.ndarray:
    """Positions of the picks, (k,) in rank order: at most the budget, and all accepted rows.

    Raises:
        UsageError: duplicates shall be dropped and the pool has no index, or the budget is less than one row.
    """
    accepted = np.isin(about.rows, choices.accepted)
    if choices.only_accepted:
        return ranking.order[accepted[ranking.order]]
    order = ranking.order
    if choices.rejected:
        order = order[~np.isin(about.rows, choices.rejected)[order]]
    if choices.accepted:
        order = np.concatenate([order[accepted[order]], order[~accepted[order]]])
    if choices.drop_duplicates:
        order = order[_first_of_each(order, about) | accepted[order]]
    if choices.cap:
        order = order[_within_cap(ranking, order, budget, choices.cap, about) | accepted[order]]
    picks = budget.take(ranking, about.n_tokens, order)
    if choices.accepted:
        picks = np.union1d(picks, np.flatnonzero(accepted))
        picks = picks[np.argsort(ranking.rank[picks], kind="stable")]
    return picks


def _first_of_each(order: np.ndarray, about: Traits) -> np.ndarray:
    """Which of `order` come first of their near-duplicates, a mask."""
    if about.near is None:
        raise UsageError("This store has no index of near-duplicates yet: run gradsift score on it again.")
    first = np.zeros(len(order), dtype=bool)
    first[np.unique(about.near[order], return_index=True)[1]] = True
    return first


def _within_cap(ranking: Ranking, order: np.ndarray, budget: Budget, cap: str, about: Traits) -> np.ndarray:
    """Which of `order` are among the best of their source that the cap lets through, a mask.

    A share is of the budget: of its rows, or of its tokens.
    """
    sources = about.source[order]
    if not cap.endswith("%"):
        return count_within(sources) < int(cap)
    share = float(cap[:-1]) / 100
    if budget.unit != "tokens":
        return count_within(sources) < max(1, int(budget.rows(len(ranking.rows)) * share + 1e-9))
    used = pd.Series(about.n_tokens[order]).groupby(sources).cumsum().to_numpy()
    return used <= budget.amount * share


def score(
    store: Store,
    targets: Sequence[Row],
    methods: Sequence[str] = ("less",),
    *,
    progress: Progress | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """Score every usable row of the store against the targets by each method.

    choices: fields of `Choices` that concern ranking, such as `aggregate="mean"`.

    Returns one line per method and row: row, id, source, method, score, rank, best_subtask.

    Raises:
        TargetError, StoreError, UsageError: see `influence.score_targets` and `choices.make_choices`.
    """
    chosen = make_choices(**choices)
    scoring = score_targets(store, targets, methods, chosen.gradient, progress)
    about = traits(store, scoring)
    return scores_table(store, scoring, [ranked(scoring, method, chosen, about) for method in methods])


def select(
    store: Store,
    targets: Sequence[Row],
    top: str,
    out: str | Path,
    *,
    method: str = "less",
    format: str = "messages",
    progress: Progress | None = None,
    **choices: Any,
) -> Path:
    """Pick the best rows within the budget `top` (`5%`, `200`, `50000tokens`) and write them for a trainer.

    choices: fields of `Choices`, such as `cap="30%"` or `drop_duplicates=True`.

    Writes `out/train.jsonl` (or `.parquet`), `scores.parquet`, `manifest.json`, `README.md`; returns the data file.

    Raises:
        UsageError: the budget, the format or a choice is none. TargetError, StoreError, ExportError: see there.
    """
    budget, chosen = Budget.parse(top), make_choices(**choices)
    if (Path(out) / "pool.parquet").exists():
        raise UsageError(f"{out} is a store, which an export would overwrite: choose another --out.")
    scoring = score_targets(store, targets, [method], chosen.gradient, progress)
    about = traits(store, scoring)
    ranking = ranked(scoring, method, chosen, about)
    picks = picked(ranking, budget, chosen, about)
    manifest = {
        "store": store.fingerprint,
        "model": store.manifest.config.model,
        "pool": list(store.manifest.inputs),
        "method": method,
        "budget": str(budget),
        **chosen.model_dump(mode="json", include=_ALWAYS_TOLD),
        "choices": chosen.changed,
        "targets": len(scoring.targets),
        "subtasks": scoring.subtask_names,
        "scored_rows": len(scoring.rows),
        "excluded_rows": store.manifest.rows - len(scoring.rows),
        "picked_rows": len(picks),
        "picked_tokens": int(about.n_tokens[picks].sum()),
        "command": _command(method, budget, format, chosen),
    }
    table = scores_table(store, scoring, [ranking])
    if chosen.changed:
        Path(out).mkdir(parents=True, exist_ok=True)
        atomic.write_json(Path(out) / "choices.json", chosen.changed)
    return export_picks(Path(out), format, iter_picks(store, ranking, picks), table, manifest)


def _command(method: str, budget: Budget, format: str, choices: Choices) -> str:
    """The command that makes the same files; its choices.json holds the manifest's `choices`."""
    command = f"gradsift select STORE --targets TARGETS --top {budget} --out PICKS --method {method} --format {format}"
    return command + (" --choices choices.json" if choices.changed else "")


def iter_picks(store: Store, ranking: Ranking, picks: np.ndarray) -> Iterator[Pick]:
    """The picked rows with their text, in rank order, read some thousand at a time."""
    pool = store.pool()
    for start in range(0, len(picks), _BATCH):
        positions = picks[start : start + _BATCH]
        texts = store.texts(ranking.rows[positions])
        for position, text in zip(positions, texts.itertuples(index=False), strict=True):
            about = pool.loc[text.row]
            yield Pick(
                rank=int(ranking.rank[position]),
                score=float(ranking.score[position]),
                id=about["id"],
                source=about["source"],
                task=about["task"],
                messages=list(text.messages),
                prefix=text.prefix,
                raw=text.raw,
                file=about["file"],
                line=int(about["line"]),
            )
