"""The tokens of a pool's rows as a store keeps them: ids, and where the learned runs of them start and stop."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import overload

import numpy as np
import pyarrow as pa

from gradsift.data.encode import Encoded

TOKEN_COLUMNS = ("ids", "learned", "n_cut")


def learned_runs(supervised: Sequence[bool]) -> np.ndarray:
    """Where runs of True start and stop, in turn: (start, stop, start, stop, ...), int32."""
    edges = np.diff(np.concatenate([[False], supervised, [False]]).astype(np.int8))
    return np.flatnonzero(edges).astype(np.int32)


class StoredTokens(Sequence[Encoded]):
    """Rows as a build encoded them, four bytes a token; an `Encoded` is made each time one is asked for.

    ids, learned: (n,) arrays of int32, the latter as `learned_runs` gives them. n_cut: (n,) tokens cut off.
    """

    def __init__(self, ids: Sequence[np.ndarray], learned: Sequence[np.ndarray], n_cut: Sequence[int]) -> None:
        self._ids, self._learned, self._n_cut = ids, learned, n_cut

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> "StoredTokens":
        """The rows of tables that have `TOKEN_COLUMNS`, one after another."""
        ids, learned = ([array for table in tables for array in _arrays(table[name])] for name in TOKEN_COLUMNS[:2])
        return cls(ids, learned, [cut for table in tables for cut in table["n_cut"].to_pylist()])

    def take(self, positions: Iterable[int]) -> "StoredTokens":
        """The rows at these positions, in this order."""
        at = list(positions)
        return StoredTokens([self._ids[i] for i in at], [self._learned[i] for i in at], [self._n_cut[i] for i in at])

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredTokens": ...
    def __getitem__(self, index: int | slice) -> "Encoded | StoredTokens":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        ids = self._ids[index]
        supervised = np.zeros(len(ids), dtype=bool)
        for start, stop in self._learned[index].reshape(-1, 2):
            supervised[start:stop] = True
        n_answer = int(supervised.sum())
        return Encoded(ids.tolist(), supervised.tolist(), len(ids) - n_answer, n_answer, self._n_cut[index])


def _arrays(column: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """The lists of a column as arrays, which share its memory; a missing list is empty."""
    for chunk in column.chunks:
        values = chunk.values.to_numpy(zero_copy_only=False)
        yield from (values[start:stop] for start, stop in pairwise(chunk.offsets.to_pylist()))
