"""Two tables of picks compared, within a store and across two: against sets and counts."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gradsift
from gradsift.analysis.difference import difference, ranks_there
from gradsift.data.targets import read_targets

PICKS = st.lists(st.integers(0, 12), max_size=10, unique=True)
LINES = st.lists(st.sampled_from("abcdef"), max_size=10)


def table(rows, lines=None) -> pd.DataFrame:
    """A table like that of `Picks.table`: rank r for the r-th row, the source by the row's parity."""
    n = len(rows)
    columns = {"rank": np.arange(1, n + 1), "row": np.array(rows, dtype=np.int64), "score": 1 / np.arange(1, n + 1)}
    texts = {"id": [f"i{row}" for row in rows], "source": [("even", "odd")[row % 2] for row in rows], "file": ["f"] * n}
    contents = [f"sha of {row}" for row in rows] if lines is None else lines
    return pd.DataFrame({**columns, **texts, "line": columns["row"] + 1, "sha256": np.array(contents, dtype=object)})


@given(PICKS, PICKS)
@settings(deadline=None)
def test_within_a_store_rows_differ_as_sets(one, two):
    result = difference(table(one), table(two), True)
    assert [one[at] for at in result.only_a] == [row for row in one if row not in two]
    assert [two[at] for at in result.only_b] == [row for row in two if row not in one]
    assert [one[at] for at, _ in result.both] == [two[at] for _, at in result.both]
    assert [one[at] for at, _ in result.both] == [row for row in one if row in two]
    union = set(one) | set(two)
    assert result.overlap == (len(set(one) & set(two)) / len(union) if union else 0.0)


@given(LINES, LINES)
@settings(deadline=None)
def test_across_stores_lines_match_as_often_as_both_have_them(one, two):
    result = difference(table(range(len(one)), one), table(range(len(two)), two), False)
    assert Counter(one[at] for at, _ in result.both) == Counter(one) & Counter(two)
    assert [one[at] for at, _ in result.both] == [two[at] for _, at in result.both]
    assert Counter(one[at] for at in result.only_a) == Counter(one) - Counter(two)
    assert Counter(two[at] for at in result.only_b) == Counter(two) - Counter(one)


@given(PICKS, PICKS)
@settings(deadline=None)
def test_tables_add_up(one, two):
    result = difference(table(one), table(two), True)
    whole, by_source = result.table(), result.by_source()
    assert whole["where"].tolist() == (
        ["both"] * len(result.both) + ["only A"] * len(result.only_a) + ["only B"] * len(result.only_b)
    )
    assert sorted(whole["row_a"].dropna().tolist()) == sorted(one)
    assert sorted(whole["row_b"].dropna().tolist()) == sorted(two)
    assert set(whole["id"]) == {f"i{row}" for row in {*one, *two}}
    for line in by_source.itertuples():
        parity = ("even", "odd").index(line.source)
        assert line.picks_a == line.both + line.only_a == sum(row % 2 == parity for row in one)
        assert line.picks_b == line.both + line.only_b == sum(row % 2 == parity for row in two)
    assert by_source["source"].tolist() == sorted({("even", "odd")[row % 2] for row in {*one, *two}})


def test_ranks_of_rows_there():
    ranking = SimpleNamespace(rows=np.array([2, 3, 5, 8]), rank=np.array([4, 1, 3, 2]))
    assert ranks_there(ranking, [3, 4, 8, 99]) == {3: 1, 8: 2}
    theirs = pd.Series(["x", "y", "z", "x"], index=pd.Index([0, 1, 2, 3], name="row"), name="sha256")
    ours = pd.Series(["x", "x", "y", "w"], index=pd.Index([2, 5, 8, 9], name="row"), name="sha256")
    assert ranks_there(ranking, [0, 1, 2], (theirs, ours)) == {0: 3, 1: 2}  # the better of rows 2 and 5


@pytest.mark.parametrize("top", ["6", "50%"])
def test_two_selections_of_a_store(tiny_store, tiny_targets, top):
    targets = read_targets(tiny_targets).rows
    one, two = (gradsift.pick(tiny_store, targets, top, method=method) for method in ("less", "random"))
    result = difference(one.table(), two.table(), True)
    assert set(one.rows[result.only_a]) == set(one.rows) - set(two.rows)
    assert set(two.rows[result.only_b]) == set(two.rows) - set(one.rows)
