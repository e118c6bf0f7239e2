"""The two questions people ask of a store: how does every row score, and which rows should I train on?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradsift.config import Aggregate, GradientKind, Similarity, TargetPooling
from gradsift.errors import UsageError
from gradsift.export import Pick, export_picks
from gradsift.influence import Scoring, score_targets
from gradsift.pool import Row
from gradsift.progress import Progress
from gradsift.selection import Budget, Ranking, rank, scores_table
from gradsift.store import Store

_BATCH = 5000  # picks lie anywhere, so that each batch may read the whole pool: few batches, none too large


def score(
    store: Store,
    targets: Sequence[Row],
    methods: Sequence[str] = ("less",),
    *,
    aggregate: Aggregate = "max",
    similarity: Similarity = "cosine",
    target_pooling: TargetPooling = "cosine-of-mean",
    gradient: GradientKind = "adam",
    seed: int = 0,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Score every usable row of the store against the targets by each method.

    Returns one line per method and row: row, id, source, method, score, rank, best_subtask.

    Raises:
        TargetError, StoreError, UsageError: see `influence.score_targets` and `selection.rank`.
    """
    scoring = score_targets(store, targets, methods, gradient, progress)
    how: dict[str, Any] = {"aggregate": aggregate, "similarity": similarity, "target_pooling": target_pooling}
    return scores_table(store, scoring, [rank(scoring, m, **how, gradient=gradient, seed=seed) for m in methods])


def select(
    store: Store,
    targets: Sequence[Row],
    top: str,
    out: str | Path,
    *,
    method: str = "less",
    format: str = "messages",
    aggregate: Aggregate = "max",
    similarity: Similarity = "cosine",
    target_pooling: TargetPooling = "cosine-of-mean",
    gradient: GradientKind = "adam",
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Pick the best rows within the budget `top` (`5%`, `200`, `50000tokens`) and write them for a trainer.

    Writes `out/train.jsonl` (or `.parquet`), `scores.parquet`, `manifest.json`, `README.md`; returns the data file.

    Raises:
        UsageError: the budget or the format is none. TargetError, StoreError, ExportError: see there.
    """
    budget = Budget.parse(top)
    if (Path(out) / "pool.parquet").exists():
        raise UsageError(f"{out} is a store, which an export would overwrite: choose another --out.")
    scoring = score_targets(store, targets, [method], gradient, progress)
    how: dict[str, Any] = {"aggregate": aggregate, "similarity": similarity, "target_pooling": target_pooling}
    ranking = rank(scoring, method, **how, gradient=gradient, seed=seed)
    tokens = token_counts(store, scoring)
    picks = budget.take(ranking, tokens)
    flags = " ".join(f"--{n.replace('_', '-')} {v}" for n, v in {"method": method, **how, "gradient": gradient}.items())
    manifest = {
        "store": store.fingerprint,
        "model": store.manifest.config.model,
        "pool": list(store.manifest.inputs),
        "method": method,
        "budget": str(budget),
        **how,
        "gradient": gradient,
        "seed": seed,
        "targets": len(scoring.targets),
        "subtasks": scoring.subtask_names,
        "scored_rows": len(scoring.rows),
        "excluded_rows": store.manifest.rows - len(scoring.rows),
        "picked_rows": len(picks),
        "picked_tokens": int(tokens[picks].sum()),
        "command": f"gradsift select STORE --targets TARGETS --top {budget} --out PICKS {flags} --format {format}",
    }
    table = scores_table(store, scoring, [ranking])
    return export_picks(Path(out), format, iter_picks(store, ranking, picks), table, manifest)


def token_counts(store: Store, scoring: Scoring) -> np.ndarray:
    """(n,) prompt and answer tokens of every scored row."""
    pool = store.pool().loc[scoring.rows]
    return (pool["n_prompt_tokens"] + pool["n_answer_tokens"]).to_numpy()


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
