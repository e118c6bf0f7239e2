"""How does every row score? The whole way from targets to a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gradsift.data.pool import Row
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import make_choices
from gradsift.scoring.portable import use_target_features
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.picks import ranked, read_traits
from gradsift.selection.ranking import scores_table


def score(
    store: Store,
    targets: Sequence[Row],
    methods: Sequence[str] = ("less",),
    *,
    target_features: str | Path | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> pd.DataFrame:
    """Score every usable row of the store against the targets by each method.

    target_features: a file of `portable.target_features`; no model is loaded then. choices: fields of `RankingChoices`,
    such as `aggregate="mean"`.

    Returns one line per method and row: row, id, source, method, score, rank, best_subtask.

    Raises:
        TargetError, StoreError, UsageError: see `score_targets` and `make_choices`.
    """
    ranking_choices = make_choices(**choices)
    if target_features is not None:
        use_target_features(store, targets, target_features)
    scoring = score_targets(store, targets, methods, ranking_choices.gradient, progress)
    traits = read_traits(store, scoring)
    return scores_table(store, scoring, [ranked(scoring, method, ranking_choices, traits) for method in methods])
