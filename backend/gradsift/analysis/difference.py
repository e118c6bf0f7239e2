"""Two selections compared: what both pick and what only one of them picks, within a store or across two.

    difference     two tables from `Picks.table` -> which lines match
    ranks_there    the ranks that another ranking gives to some rows

Within one store a row is identified by its number. Across stores two rows are the same if their lines in the pool files
are equal byte for byte (`sha256`); of a line that one side picks several times, as many match as the other side picks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradsift.selection.ranking import Ranking, count_within

_NUMBERS = ["row", "rank", "score"]


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """What two tables of picks, a and b, have in common, as line numbers (from 0, in rank order).

    both: (m, 2), a line of a and the matching line of b. only_a, only_b: lines without a match.
    """

    a: pd.DataFrame
    b: pd.DataFrame
    both: np.ndarray
    only_a: np.ndarray
    only_b: np.ndarray

    @property
    def overlap(self) -> float:
        """Rows in both over rows in either (Jaccard), 0 if nothing is picked."""
        union = len(self.both) + len(self.only_a) + len(self.only_b)
        return len(self.both) / union if union else 0.0

    def by_source(self) -> pd.DataFrame:
        """One line per source: source, picks_a, picks_b, both, only_a, only_b; rows in both have the source from a."""
        sources_a, sources_b = self.a["source"].to_numpy(str), self.b["source"].to_numpy(str)
        parts = {
            "picks_a": sources_a,
            "picks_b": sources_b,
            "both": sources_a[self.both[:, 0]],
            "only_a": sources_a[self.only_a],
            "only_b": sources_b[self.only_b],
        }
        counts = {name: pd.Series(values).value_counts() for name, values in parts.items()}
        table = pd.DataFrame(counts).fillna(0).astype(int).sort_index()
        return table.rename_axis("source").reset_index()

    def table(self) -> pd.DataFrame:
        """The whole difference, one line per row.

        where ("both", "only A", "only B"), source, id, file, line, sha256, then row, rank and score on each side (row_a
        to score_b), missing on the side that does not pick the row.
        """
        names_a, names_b = ({name: f"{name}_{side}" for name in _NUMBERS} for side in "ab")
        theirs = self.b.iloc[self.both[:, 1]][_NUMBERS].reset_index(drop=True).rename(columns=names_b)
        both = self.a.iloc[self.both[:, 0]].reset_index(drop=True).rename(columns=names_a).join(theirs)
        only_a = self.a.iloc[self.only_a].rename(columns=names_a)
        only_b = self.b.iloc[self.only_b].rename(columns=names_b)
        parts = [both.assign(where="both"), only_a.assign(where="only A"), only_b.assign(where="only B")]
        columns = ["where", "source", "id", "file", "line", "sha256", *names_a.values(), *names_b.values()]
        table = pd.concat(parts, ignore_index=True)[columns]
        return table.astype({f"{name}_{side}": "Int64" for side in "ab" for name in ("row", "rank")})


def difference(a: pd.DataFrame, b: pd.DataFrame, same_store: bool) -> Difference:
    """Match the lines of two tables from `Picks.table`: by row number in the same store, else by content."""
    keys_a, keys_b = (pd.Index(a["row"]), pd.Index(b["row"])) if same_store else _content_keys(a, b)
    at = keys_b.get_indexer(keys_a)
    inside = np.flatnonzero(at >= 0)
    missing = np.ones(len(keys_b), dtype=bool)
    missing[at[inside]] = False
    both = np.stack([inside, at[inside]], axis=1)
    return Difference(a, b, both, np.flatnonzero(at < 0), np.flatnonzero(missing))


def ranks_there(
    ranking: Ranking, rows: Sequence[int], contents: tuple[pd.Series, pd.Series] | None = None
) -> dict[int, int]:
    """The best rank that a ranking gives to each of some pool rows; rows that it has not scored have no entry.

    contents: if `rows` are numbers in another store's pool, the column `sha256` of that pool and of the ranking's own,
    both indexed by row number. Returns a mapping from the numbers in `rows` to ranks.
    """
    if contents is None:
        own = pd.Series(rows, index=rows)
    else:
        theirs, ours = contents[0].loc[list(rows)], contents[1]
        matches = ours[ours.isin(theirs)]
        pairs = theirs.reset_index().merge(matches.reset_index(), on="sha256", suffixes=("", "_there"))
        own = pd.Series(pairs["row_there"].to_numpy(), index=pairs["row"].to_numpy())
    at = np.searchsorted(ranking.rows, own.to_numpy())
    scored = (at < len(ranking.rows)) & (ranking.rows[np.minimum(at, len(ranking.rows) - 1)] == own.to_numpy())
    ranks = pd.Series(ranking.rank[at[scored]], index=own.index[scored])
    return {int(row): int(rank) for row, rank in ranks.groupby(level=0).min().items()}


def _content_keys(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.Index, pd.Index]:
    """A number for every pick, unique within its side, made from its content and its occurrence number there."""
    codes = pd.factorize(np.concatenate([a["sha256"].to_numpy(object), b["sha256"].to_numpy(object)]))[0]
    keys = [code * np.int64(len(codes)) + count_within(code) for code in np.split(codes, [len(a)])]
    return pd.Index(keys[0]), pd.Index(keys[1])
