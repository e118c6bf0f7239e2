"""The two questions people ask of a store: how does every row score, and which rows should I train on?

`ranked` and `picked` answer them from a kept scoring under the `Choices` of choices.py; `score` and `select` go all the
way from targets to files.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gradsift.config import GradientKind
from gradsift.data.pool import Row
from gradsift.datastore.store import Store
from gradsift.export.files import check_compression, export_picks, refuse_strangers
from gradsift.export.formats import Pick, check_format
from gradsift.runtime import atomic
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.portable import use_target_features
from gradsift.scoring.score_targets import score_targets
from gradsift.scoring.scoring import Scoring
from gradsift.selection.budget import Budget
from gradsift.selection.choices import Choices, make_choices
from gradsift.selection.diversity import HEAD, MOST, diverse_order, last_gain, load_updates
from gradsift.selection.leakage import MOST_QUOTED, Evaluation, Found, Leak, Leakage, find_leaks, read_evaluation
from gradsift.selection.ranking import Ranking, count_within, length_matched, rank, scores_table
from gradsift.text.index import has_index, near
from gradsift.text.overlap import Matcher

if TYPE_CHECKING:
    import torch

_BATCH = 4_000_000  # tokens: picks lie anywhere, so that each batch may read the whole pool; few, none too large
_ALWAYS_TOLD = {"aggregate", "similarity", "target_pooling", "gradient", "seed"}


@dataclass(frozen=True)
class Traits:
    """What choices look at beside the scores, aligned with the scored rows.

    rows: (n,) pool row numbers. n_tokens, n_answer: (n,) tokens of the row and of its answer. source: (n,) number of
    its source. near: (n,) a number that near-duplicates share, or None where the pool has no index yet. updates:
    (positions, kind of gradient) -> what `diversity.load_updates` reads of the store.
    """

    rows: np.ndarray
    n_tokens: np.ndarray
    n_answer: np.ndarray
    source: np.ndarray
    near: np.ndarray | None
    updates: Callable[[np.ndarray, GradientKind], "torch.Tensor"] | None = None


def traits(store: Store, scoring: Scoring) -> Traits:
    """Read the traits of every scored row."""
    pool = store.pool()[["source", "n_prompt_tokens", "n_answer_tokens"]].loc[scoring.rows]
    n_answer = pool["n_answer_tokens"].to_numpy()
    return Traits(
        rows=scoring.rows,
        n_tokens=pool["n_prompt_tokens"].to_numpy() + n_answer,
        n_answer=n_answer,
        source=pd.factorize(pool["source"])[0],
        near=near(store)[scoring.rows] if has_index(store) else None,
        updates=partial(load_updates, store),
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
        UsageError: duplicates shall be dropped and the pool has no index, the budget is less than one row, or diverse
            picks are asked of a ranking that is not by score. ShardError: they are, and the features are not there.
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
    within = partial(_within, ranking, budget, choices, about, accepted)
    if choices.diverse:
        order = _spread(ranking, order, budget, choices, about, int(accepted[order].sum()), within)
    picks = within(order)
    if choices.accepted:
        picks = np.union1d(picks, np.flatnonzero(accepted))
    return picks[np.argsort(ranking.rank[picks], kind="stable")] if choices.accepted or choices.diverse else picks


def _first_of_each(order: np.ndarray, about: Traits) -> np.ndarray:
    """Which of `order` come first of their near-duplicates, a mask."""
    if about.near is None:
        raise UsageError("This store has no index of near-duplicates yet: run gradsift score on it again.")
    first = np.zeros(len(order), dtype=bool)
    first[np.unique(about.near[order], return_index=True)[1]] = True
    return first


def _within(
    ranking: Ranking, budget: Budget, choices: Choices, about: Traits, accepted: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """The best of `order` that cap and budget let through."""
    if choices.cap:
        order = order[_within_cap(ranking, order, budget, choices.cap, about) | accepted[order]]
    return budget.take(ranking, about.n_tokens, order, int(accepted[order].sum()))


def _spread(
    ranking: Ranking,
    order: np.ndarray,
    budget: Budget,
    choices: Choices,
    about: Traits,
    taken: int,
    within: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """`order` with its head as `diversity.diverse_order` has it; the first stay taken.

    The head is some times what `within` picks, and more as long as a row below it may gain more than the last pick.
    """
    if about.updates is None or choices.aggregate == "round-robin" or choices.length_matched:
        raise UsageError(
            "Diverse picks weigh a row's score against the rows chosen before, which neither round-robin nor a "
            "length-matched ranking goes by: choose max or mean over subtasks and switch the matching off."
        )
    enough = None if choices.cap or budget.unit == "tokens" else max(taken, budget.rows(len(ranking.rows)))
    size = max(HEAD * len(within(order)), taken, 1)  # 1: a cap may let nothing through
    while True:
        head = order[: min(size, MOST)]
        updates = about.updates(head, choices.gradient)
        chosen = diverse_order(ranking.score[head], updates, min(taken, len(head)), enough)
        spread = np.concatenate([head[chosen], order[len(head) :]])
        if len(head) == min(len(order), MOST):
            return spread
        used = int(np.flatnonzero(np.isin(spread, within(spread))).max(initial=-1)) + 1
        if used <= len(head) and last_gain(ranking.score[head], updates, chosen[:used]) >= ranking.score[order[size]]:
            return spread
        size *= 2


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
    return used <= budget.amount * share + 1e-6


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

    target_features: a file of `portable.target_features`; no model is loaded then. choices: fields of `Choices` that
    concern ranking, such as `aggregate="mean"`.

    Returns one line per method and row: row, id, source, method, score, rank, best_subtask.

    Raises:
        TargetError, StoreError, UsageError: see `influence.score_targets` and `choices.make_choices`.
    """
    chosen = make_choices(**choices)
    if target_features is not None:
        use_target_features(store, targets, target_features)
    scoring = score_targets(store, targets, methods, chosen.gradient, progress)
    about = traits(store, scoring)
    return scores_table(store, scoring, [ranked(scoring, method, chosen, about) for method in methods])


@dataclass(frozen=True)
class Selection:
    """What was picked, and all that decided it: for the manifest and the report. picks: (k,) positions."""

    store: Store
    scoring: Scoring
    about: Traits
    ranking: Ranking
    picks: np.ndarray
    budget: Budget
    choices: Choices
    leakage: Leakage


def select(
    store: Store,
    targets: Sequence[Row],
    top: str,
    out: str | Path,
    *,
    method: str = "less",
    format: str = "messages",
    compress: str = "none",
    bundle: bool = False,
    report: bool = False,
    evaluation: Sequence[str | Path] = (),
    drop_leaks: bool = False,
    target_features: str | Path | None = None,
    progress: Progress | None = None,
    **choices: Any,
) -> Path:
    """Pick the best rows within the budget `top` (`5%`, `200`, `50000tokens`) and write them for a trainer.

    compress: `none`, `gzip` or `zstd`, of the data file. bundle: all files as one zip, too. report: report.html, too.
    evaluation: files that no pick should share text with; the targets always are compared. drop_leaks: the next rows
    take the places of those that do. target_features: as in `score`. choices: fields of `Choices`, such as `cap="30%"`
    or `drop_duplicates=True`.

    Writes the folder that export.py describes; returns the data file.

    Raises:
        UsageError: the budget, the format, the compression or a choice is none. TargetError, StoreError, PoolError,
        ExportError: see there.
    """
    budget, chosen, out = Budget.parse(top), make_choices(**choices), Path(out)
    check_format(format)
    check_compression(format, compress)
    if (out / "pool.parquet").exists():
        raise UsageError(f"{out} is a store, which an export would overwrite: choose another --out.")
    refuse_strangers(out)
    progress = progress or Progress(quiet=True)
    against = read_evaluation(targets, evaluation)
    if target_features is not None:
        use_target_features(store, targets, target_features)
    scoring = score_targets(store, targets, [method], chosen.gradient, progress)
    about = traits(store, scoring)
    ranking = ranked(scoring, method, chosen, about)
    picks, leakage = _checked(store, ranking, budget, chosen, about, against, drop_leaks, progress)
    selection = Selection(store, scoring, about, ranking, picks, budget, chosen, leakage)
    beside = {"choices.json": atomic.json_text(chosen.changed)} if chosen.changed else {}
    if leakage.leaks:
        beside["leakage.json"] = leakage.to_json()
    flags = [f"--compress {compress}"] if compress != "none" else []
    flags += [f"--evaluation {shlex.quote(Path(path).name)}" for path in evaluation]
    flags += [f"--{name}" for name, on in (("drop-leaks", drop_leaks), ("report", report), ("bundle", bundle)) if on]
    progress.stage("write", "Writing the files", len(picks), "rows")
    return export_picks(
        out,
        format,
        _counted(iter_picks(store, ranking, picks, about, store.pool()), progress),
        scores_table(store, scoring, [ranking]),
        {**_manifest(selection), "command": " ".join([_command(selection, format), *flags])},
        compress=compress,
        bundle=bundle,
        beside=beside,
        report=_reporter(selection) if report else None,
        progress=progress,
    )


def _checked(
    store: Store,
    ranking: Ranking,
    budget: Budget,
    choices: Choices,
    about: Traits,
    against: Evaluation,
    drop: bool,
    progress: Progress,
) -> tuple[np.ndarray, Leakage]:
    """The picks, and those of them that leak; with `drop` others take their places, which are checked as well."""
    matcher, found, checked = Matcher(against.examples), Found(), np.zeros(len(about.rows), dtype=bool)
    while True:
        picks = picked(ranking, budget, choices, about)
        fresh = picks[~checked[picks]]
        checked[fresh] = True
        progress.stage("leaks", "Comparing the picks with the targets and evaluations", len(fresh), "rows")
        found |= find_leaks(store, about.rows[fresh], matcher, progress)
        leaking = [row for row in about.rows[picks].tolist() if row in found]
        if not drop or not leaking:
            break
        kept = tuple(row for row in choices.accepted if row not in found)
        choices = choices.model_copy(update={"rejected": (*choices.rejected, *leaking), "accepted": kept})
    leaks = _ranked_leaks(store, ranking, about, found, set(leaking), matcher)
    return picks, Leakage(against, int(checked.sum()), leaks)


def _ranked_leaks(
    store: Store, ranking: Ranking, about: Traits, found: Found, kept: set[int], matcher: Matcher
) -> tuple[Leak, ...]:
    """The flagged rows in rank order, those not `kept` dropped; only the best are told with their texts."""
    rows = np.array(list(found), dtype=np.int64)
    ranks = ranking.rank[np.searchsorted(about.rows, rows)]
    by_rank = np.argsort(ranks)
    rows, ranks = rows[by_rank], ranks[by_rank]
    quoted = {**found, **find_leaks(store, rows[:MOST_QUOTED], matcher, quote=True)}
    pool = store.pool().loc[rows]
    lines = zip(rows.tolist(), ranks.tolist(), pool["id"], pool["source"], strict=True)
    return tuple(Leak(row, rank, id, source, row not in kept, *quoted[row]) for row, rank, id, source in lines)


def _manifest(selection: Selection) -> dict[str, Any]:
    store, scoring, choices, picks = selection.store, selection.scoring, selection.choices, selection.picks
    return {
        "store": store.fingerprint,
        "model": store.manifest.config.model,
        "pool": list(store.manifest.inputs),
        "method": selection.ranking.method,
        "budget": str(selection.budget),
        **choices.model_dump(mode="json", include=_ALWAYS_TOLD),
        "choices": choices.changed,
        "targets": len(scoring.targets),
        "subtasks": scoring.subtask_names,
        "scored_rows": len(scoring.rows),
        "excluded_rows": store.manifest.rows - len(scoring.rows),
        "picked_rows": len(picks),
        "picked_tokens": int(selection.about.n_tokens[picks].sum()),
        "leakage": selection.leakage.summary(),
    }


def _command(selection: Selection, format: str) -> str:
    """The command that makes the same files; its choices.json holds the manifest's `choices`."""
    how = f"--top {selection.budget} --out PICKS --method {selection.ranking.method} --format {format}"
    return f"gradsift select STORE --targets TARGETS {how}" + (
        " --choices choices.json" if selection.choices.changed else ""
    )


def _reporter(selection: Selection) -> Callable[[dict[str, Any]], str]:
    from gradsift.export.report import render

    return lambda manifest: render(selection, manifest)


def _counted(picks: Iterator[Pick], progress: Progress) -> Iterator[Pick]:
    for pick in picks:
        yield pick
        progress.advance()


def iter_picks(store: Store, ranking: Ranking, picks: np.ndarray, about: Traits, pool: pd.DataFrame) -> Iterator[Pick]:
    """The picked rows with their text, in rank order, read some thousand at a time. pool: of the store."""
    batches = np.cumsum(about.n_tokens[picks]) // _BATCH
    for positions in np.split(picks, np.flatnonzero(np.diff(batches)) + 1) if len(picks) else ():
        texts = store.texts(ranking.rows[positions])
        known = pool.loc[ranking.rows[positions]]
        texts_and_rows = texts.itertuples(index=False), known.itertuples(index=False)
        lines = zip(positions.tolist(), ranking.served(positions), *texts_and_rows, strict=True)
        for position, subtask, text, row in lines:
            yield Pick(
                rank=int(ranking.rank[position]),
                score=float(ranking.score[position]),
                id=row.id,
                source=row.source,
                task=row.task,
                messages=list(text.messages),
                prefix=text.prefix,
                raw=text.raw,
                file=row.file,
                line=int(row.line),
                tokens=int(about.n_tokens[position]),
                best_subtask=subtask,
            )
