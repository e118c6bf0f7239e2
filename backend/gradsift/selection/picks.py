"""Which rows a method picks within a budget, under the `Choices`: arithmetic on a kept scoring; nothing is written.

`ranked` and `picked` are the two steps; `make_picks` takes both and returns `Picks`, which hold the rows and all that
decided them. For the whole way from targets to files see export/selection.py.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from gradsift.config import GradientKind
from gradsift.data.conversation import Conversation
from gradsift.datastore.store import Store
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import Choices, RankingChoices
from gradsift.scoring.scoring import Scoring
from gradsift.selection.budget import Budget
from gradsift.selection.diversity import HEAD, MOST, diverse_order, last_gain, load_updates
from gradsift.selection.ranking import Ranking, count_within, length_matched, rank
from gradsift.text.index import has_index, near

if TYPE_CHECKING:
    import torch

_BATCH = 4_000_000  # tokens. Each batch may read the whole pool, so batches are few, yet small enough for memory


@dataclass(frozen=True, slots=True)
class Pick:
    """One selected row with its text."""

    rank: int  # from 1
    score: float
    id: str
    source: str
    task: str
    conversation: Conversation
    raw: bytes  # the source's line, or the record as JSON
    file: str
    line: int  # from 1
    tokens: int  # prompt and answer
    best_subtask: str


@dataclass(frozen=True)
class Traits:
    """What choices depend on beside the scores, aligned with the scored rows.

    rows: (n,) pool row numbers. n_tokens, n_answer: (n,) tokens of the row and of its answer. source: (n,) number of
    its source. near: (n,) a number that near-duplicates share, or None if the pool has no index yet. updates:
    (positions, kind of gradient) -> what `diversity.load_updates` reads from the store.
    """

    rows: np.ndarray
    n_tokens: np.ndarray
    n_answer: np.ndarray
    source: np.ndarray
    near: np.ndarray | None
    updates: Callable[[np.ndarray, GradientKind | None], "torch.Tensor"] | None = None


@dataclass(frozen=True, eq=False)
class Picks:
    """The rows that one method picks from a store, and all that decided them.

    positions: (k,) of the picks among the n scored rows, in rank order.
    """

    store: Store
    scoring: Scoring
    traits: Traits
    ranking: Ranking
    budget: Budget
    choices: Choices
    positions: np.ndarray

    @property
    def method(self) -> str:
        """Name of the method that ranked the rows."""
        return self.ranking.method

    @property
    def rows(self) -> np.ndarray:
        """(k,) pool row numbers of the picks, in rank order."""
        return self.ranking.rows[self.positions]

    @property
    def tokens(self) -> int:
        """Tokens of all picks, prompts and answers."""
        return int(self.traits.n_tokens[self.positions].sum())

    @property
    def gradient(self) -> GradientKind:
        """The stored update that LESS compared."""
        return self.choices.gradient or self.scoring.gradient

    @property
    def changed(self) -> dict[str, Any]:
        """The choices that differ from the defaults, as choices.json records them."""
        return self.choices.record(self.scoring.gradient)

    def __len__(self) -> int:
        return len(self.positions)

    def table(self, pool: pd.DataFrame | None = None) -> pd.DataFrame:
        """One line per pick, in rank order, without the text.

        rank, row (number in the pool), id, source, task, score, tokens (prompt and answer), best_subtask ("" if the
        row serves no subtask), file, line, sha256 (of the line in the pool file). pool: `Store.pool`, if already read.
        """
        entries = (self.store.pool() if pool is None else pool).loc[self.rows]
        return pd.DataFrame(
            {
                "rank": self.ranking.rank[self.positions],
                "row": self.rows,
                "id": entries["id"].to_numpy(),
                "source": entries["source"].to_numpy(),
                "task": entries["task"].to_numpy(),
                "score": self.ranking.score[self.positions],
                "tokens": self.traits.n_tokens[self.positions],
                "best_subtask": self.ranking.served(self.positions),
                "file": entries["file"].to_numpy(),
                "line": entries["line"].to_numpy(),
                "sha256": entries["sha256"].to_numpy(),
            }
        )

    def read(self, positions: np.ndarray | None = None, pool: pd.DataFrame | None = None) -> Iterator[Pick]:
        """The picks with their text, in rank order, read in batches of a few million tokens.

        positions: only these picks. pool: `Store.pool`, if already read.
        """
        positions = self.positions if positions is None else positions
        if not len(positions):
            return
        pool = self.store.pool() if pool is None else pool
        batches = np.cumsum(self.traits.n_tokens[positions]) // _BATCH
        for batch in np.split(positions, np.flatnonzero(np.diff(batches)) + 1):
            yield from self._read_batch(batch, pool)

    def _read_batch(self, positions: np.ndarray, pool: pd.DataFrame) -> Iterator[Pick]:
        rows = self.ranking.rows[positions]
        texts, entries = self.store.texts(rows), pool.loc[rows]
        subtasks = self.ranking.served(positions)
        columns = texts.itertuples(index=False), entries.itertuples(index=False)
        for position, subtask, text, row in zip(positions.tolist(), subtasks, *columns, strict=True):
            yield Pick(
                rank=int(self.ranking.rank[position]),
                score=float(self.ranking.score[position]),
                id=row.id,
                source=row.source,
                task=row.task,
                conversation=text.conversation,
                raw=text.raw,
                file=row.file,
                line=int(row.line),
                tokens=int(self.traits.n_tokens[position]),
                best_subtask=subtask,
            )


def make_picks(store: Store, scoring: Scoring, method: str, budget: Budget, choices: Choices) -> Picks:
    """Rank every scored row by one method and pick within the budget.

    Raises:
        UsageError, StoreError, ShardError: as `ranked` and `picked`.
    """
    traits = read_traits(store, scoring)
    ranking = ranked(scoring, method, choices, traits)
    positions = picked(ranking, budget, choices, traits)
    return Picks(store, scoring, traits, ranking, budget, choices, positions)


def read_traits(store: Store, scoring: Scoring) -> Traits:
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


def ranked(scoring: Scoring, method: str, choices: RankingChoices, traits: Traits) -> Ranking:
    """Rank every scored row by one method.

    Raises:
        UsageError: a choice names something that is not scored, or leaves nothing. StoreError: the scoring does not
            hold the method's evidence.
    """
    ranking = rank(
        scoring.under(choices),
        method,
        aggregate=choices.aggregate,
        similarity=choices.similarity,
        target_pooling=choices.target_pooling,
        gradient=choices.gradient,
        seed=choices.seed,
    )
    return length_matched(ranking, traits.n_answer) if choices.length_matched else ranking


def picked(ranking: Ranking, budget: Budget, choices: Choices, traits: Traits) -> np.ndarray:
    """Positions of the picks, (k,) in rank order: at most the budget, and all accepted rows.

    Raises:
        UsageError: duplicates are to be dropped but the pool has no index, the budget is less than one row, or picks
            are to be diverse but the ranking is not by score. ShardError: picks are to be diverse but the features
            are missing or damaged.
    """
    accepted = np.isin(traits.rows, choices.accepted)
    if choices.only_accepted:
        return ranking.order[accepted[ranking.order]]
    order = ranking.order
    if choices.rejected:
        order = order[~np.isin(traits.rows, choices.rejected)[order]]
    if choices.accepted:
        order = np.concatenate([order[accepted[order]], order[~accepted[order]]])
    if choices.drop_duplicates:
        order = order[_first_of_each(order, traits) | accepted[order]]
    within = partial(_within, ranking, budget, choices, traits, accepted)
    if choices.diverse:
        order = _spread(ranking, order, budget, choices, traits, int(accepted[order].sum()), within)
    picks = within(order)
    if choices.accepted:
        picks = np.union1d(picks, np.flatnonzero(accepted))
    return picks[np.argsort(ranking.rank[picks], kind="stable")] if choices.accepted or choices.diverse else picks


def _first_of_each(order: np.ndarray, traits: Traits) -> np.ndarray:
    """Mask of `order`: whether a row comes first among its near-duplicates."""
    if traits.near is None:
        raise UsageError("This store has no index of near-duplicates yet: run gradsift score on it again.")
    first = np.zeros(len(order), dtype=bool)
    first[np.unique(traits.near[order], return_index=True)[1]] = True
    return first


def _within(
    ranking: Ranking, budget: Budget, choices: Choices, traits: Traits, accepted: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """The best of `order` that cap and budget allow."""
    if choices.cap:
        order = order[_under_cap(ranking, order, budget, choices.cap, traits) | accepted[order]]
    return budget.take(ranking, traits.n_tokens, order, int(accepted[order].sum()))


def _spread(
    ranking: Ranking,
    order: np.ndarray,
    budget: Budget,
    choices: Choices,
    traits: Traits,
    taken: int,
    within: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """`order` with its head rearranged by `diversity.diverse_order`; the first `taken` rows stay taken.

    The head is a few times as long as what `within` picks, and grows while a row below it may gain more than the last
    pick.
    """
    if traits.updates is None or choices.aggregate == "round-robin" or choices.length_matched:
        raise UsageError(
            "Diverse picks weigh a row's score against the rows chosen before, but round-robin and length-matched "
            "rankings are not by score: choose max or mean over subtasks and switch length matching off."
        )
    enough = None if choices.cap or budget.unit == "tokens" else max(taken, budget.rows(len(ranking.rows)))
    size = max(HEAD * len(within(order)), taken, 1)  # 1: a cap may let nothing through
    while True:
        head = order[: min(size, MOST)]
        updates = traits.updates(head, choices.gradient)
        chosen = diverse_order(ranking.score[head], updates, min(taken, len(head)), enough)
        spread = np.concatenate([head[chosen], order[len(head) :]])
        if len(head) == min(len(order), MOST):
            return spread
        end = int(np.flatnonzero(np.isin(spread, within(spread))).max(initial=-1)) + 1
        if end <= len(head) and last_gain(ranking.score[head], updates, chosen[:end]) >= ranking.score[order[size]]:
            return spread
        size *= 2


def _under_cap(ranking: Ranking, order: np.ndarray, budget: Budget, cap: str, traits: Traits) -> np.ndarray:
    """Mask of `order`: whether a row is among the best of its source that the cap allows.

    A share is of the budget, in rows or in tokens.
    """
    sources = traits.source[order]
    if not cap.endswith("%"):
        return count_within(sources) < int(cap)
    share = float(cap[:-1]) / 100
    if budget.unit != "tokens":
        return count_within(sources) < max(1, int(budget.rows(len(ranking.rows)) * share + 1e-9))
    tokens = pd.Series(traits.n_tokens[order]).groupby(sources).cumsum().to_numpy()
    return tokens <= budget.amount * share + 1e-6
