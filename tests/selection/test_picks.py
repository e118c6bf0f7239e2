"""Ranking and picking: what-ifs against scorings made from scratch, picks against plain loops."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.data.targets import read_targets
from gradsift.runtime.errors import UsageError
from gradsift.scoring.choices import make_choices
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.budget import Budget
from gradsift.selection.picks import Traits, picked, ranked, read_traits
from gradsift.selection.ranking import Ranking, length_matched

METHODS = ("less", "rds", "bm25", "random")
OPTIONS = [
    {},
    {"aggregate": "mean"},
    {"similarity": "dot"},
    {"target_pooling": "mean-of-cosines"},
    {"target_pooling": "mean-of-cosines", "aggregate": "mean"},
    {"aggregate": "round-robin"},
    {"gradient": "sgd"},
]


@pytest.fixture(scope="module")
def targets(tiny_targets):
    return read_targets(tiny_targets).rows


@pytest.fixture(scope="module")
def whole(tiny_store, targets):
    score_targets(tiny_store, targets, METHODS, gradient="sgd")
    return score_targets(tiny_store, targets, METHODS)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()) or "paper")
@pytest.mark.parametrize("method", METHODS)
def test_leaving_out_targets_and_subtasks_equals_a_scoring_without_them(tiny_store, targets, whole, method, options):
    traits = read_traits(tiny_store, whole)
    gradient = options.get("gradient", "adam")
    for left_out, rest in (
        ({"without_targets": [1]}, [targets[0], targets[2]]),
        ({"without_subtasks": ["boxes"]}, [targets[2]]),
        ({"without_targets": [2]}, targets[:2]),
    ):
        scratch = score_targets(tiny_store, rest, [method], gradient=gradient)
        expected = ranked(scratch, method, make_choices(**options), traits)
        result = ranked(whole, method, make_choices(**options, **left_out), traits)
        scale = max(1, np.abs(expected.score).max())  # dot products and BM25 have no unit
        np.testing.assert_allclose(result.score, expected.score, rtol=0, atol=1e-6 * scale)
        assert result.subtasks == expected.subtasks
        assert (
            result.subtasks[result.best_subtask[result.order[0]]]
            == expected.subtasks[expected.best_subtask[result.order[0]]]
        )


@pytest.mark.parametrize("method", ["less", "rds"])
def test_leaving_out_a_checkpoint_equals_the_influence_at_the_others(tiny_store, whole, method):
    """The toy store has two checkpoints: without one, the other has weight 1."""
    traits = read_traits(tiny_store, whole)
    for gone, left in ((0, 1), (1, 0)):
        result = ranked(whole, method, make_choices(without_checkpoints=[whole.epochs[gone]]), traits)
        evidence = whole.evidence(method)[left]
        expected = np.full(len(whole.rows), -np.inf)
        for subtask in range(2):
            mine = np.flatnonzero(whole.subtask_of == subtask)
            length = np.sqrt(evidence.gram[np.ix_(mine, mine)].astype(float).mean())
            expected = np.maximum(expected, evidence.products[:, mine].mean(1) / length)
        np.testing.assert_allclose(result.score, expected, rtol=0, atol=1e-6)


def test_what_is_not_there_or_leaves_nothing_is_refused(tiny_store, whole):
    traits = read_traits(tiny_store, whole)
    for fields, words in (
        ({"without_targets": [9]}, "no 9"),
        ({"without_subtasks": ["dogs"]}, "no 'dogs'"),
        ({"without_subtasks": whole.epochs[:1]}, "no 'epoch-1'"),
        ({"without_checkpoints": ["boxes"]}, "no 'boxes'"),
        ({"without_subtasks": ["boxes", "cats"]}, "Nothing is left"),
        ({"without_checkpoints": whole.epochs}, "Nothing is left"),
    ):
        with pytest.raises(UsageError, match=words):
            ranked(whole, "less", make_choices(**fields), traits)


def made(score, near=None, source=None, tokens=None, n_answer=None):
    """A ranking of rows 100.. by `score`, and their traits."""
    score = np.asarray(score, dtype=float)
    n = len(score)
    order = np.argsort(-score, kind="stable")
    rank = np.empty(n, dtype=np.int64)
    rank[order] = np.arange(1, n + 1)
    ones = np.ones(n, dtype=np.int64)
    traits = Traits(
        rows=np.arange(100, 100 + n),
        n_tokens=ones * 3 if tokens is None else np.asarray(tokens),
        n_answer=ones if n_answer is None else np.asarray(n_answer),
        source=ones * 0 if source is None else np.asarray(source),
        near=None if near is None else np.asarray(near),
    )
    return Ranking("less", traits.rows, score, rank, ones * 0, order), traits


def by_loop(ranking, traits, budget, choices):
    """Picking as a person would: down the list, row by row."""
    accepted = [p for p in ranking.order if traits.rows[p] in choices.accepted]
    if choices.only_accepted:
        return accepted
    share = float(choices.cap[:-1]) / 100 if choices.cap.endswith("%") else None
    rows = budget.rows(len(ranking.rows)) if budget.unit != "tokens" else 0
    candidates, seen, per_source, used_by_source = [], set(), Counter(), Counter()
    for p in [*accepted, *(p for p in ranking.order if p not in accepted)]:
        if traits.rows[p] in choices.rejected:
            continue
        group, free = traits.near[p] if choices.drop_duplicates else p, p in accepted
        if group in seen and not free:
            continue
        seen.add(group)
        source = traits.source[p]
        per_source[source] += 1
        used_by_source[source] += traits.n_tokens[p]
        if choices.cap and not free:
            if share is None and per_source[source] > int(choices.cap):
                continue
            if share is not None and budget.unit != "tokens" and per_source[source] > max(1, int(rows * share + 1e-9)):
                continue
            if share is not None and budget.unit == "tokens" and used_by_source[source] > budget.amount * share + 1e-6:
                continue
        candidates.append(p)
    picks, used = [], 0
    for p in candidates:
        used += traits.n_tokens[p]
        if (budget.unit == "tokens" and used > budget.amount) or (budget.unit != "tokens" and len(picks) == rows):
            break
        picks.append(p)
    return sorted({*picks, *accepted}, key=lambda p: ranking.rank[p])


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_picking_equals_walking_down_the_list(data):
    n = data.draw(st.integers(1, 14))
    draw = lambda low, high: data.draw(st.lists(st.integers(low, high), min_size=n, max_size=n))  # noqa: E731
    ranking, traits = made(draw(0, 5), draw(0, 6), draw(0, 2), draw(1, 5))
    rows = st.lists(st.integers(100, 99 + n), max_size=4)
    accepted = data.draw(rows)
    choices = make_choices(
        cap=data.draw(st.sampled_from(["", "1", "2", "50%", "34%", "100%"])),
        drop_duplicates=data.draw(st.booleans()),
        accepted=accepted,
        rejected=[row for row in data.draw(rows) if row not in accepted],
        only_accepted=data.draw(st.booleans()),
    )
    budget = Budget.parse(data.draw(st.sampled_from(["1", "3", "50%", "100%", "9tokens", "200tokens"])))
    expected = by_loop(ranking, traits, budget, choices)
    assert picked(ranking, budget, choices, traits).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_a_length_matched_ranking_draws_evenly_from_every_length(rows, bins):
    score, lengths = zip(*rows, strict=True)
    ranking, traits = made(score, n_answer=lengths)
    result = length_matched(ranking, traits.n_answer, bins)
    n = len(score)
    assert sorted(result.order) == list(range(n))
    np.testing.assert_array_equal(result.rank[result.order], np.arange(1, n + 1))
    by_length = sorted(range(n), key=lambda p: (lengths[p], p))
    bin_of = {p: i * bins // n for i, p in enumerate(by_length)}
    sizes = Counter(bin_of.values())
    for k in range(1, n + 1):
        drawn = Counter(bin_of[p] for p in result.order[:k])
        assert all(abs(drawn[b] - k * size / n) <= 1 + 1e-9 for b, size in sizes.items())
    for b in sizes:  # the order within a bin stays the same
        mine = [p for p in result.order if bin_of[p] == b]
        assert mine == sorted(mine, key=lambda p: ranking.rank[p])


def test_duplicates_without_an_index_are_refused():
    ranking, traits = made([3, 2, 1])
    with pytest.raises(UsageError, match="run gradsift score"):
        picked(ranking, Budget.parse("2"), make_choices(drop_duplicates=True), traits)


def test_accepted_rows_come_in_though_the_first_is_longer_than_the_token_budget():
    ranking, traits = made([4, 3, 2, 1], tokens=[10, 10, 500, 10])
    budget = Budget.parse("100tokens")
    assert picked(ranking, budget, make_choices(accepted=[102]), traits).tolist() == [2]
    assert picked(ranking, budget, make_choices(accepted=[100, 102]), traits).tolist() == [0, 2]
    with pytest.raises(UsageError, match="less than the best row's 10"):
        picked(ranking, Budget.parse("9tokens"), make_choices(rejected=[102]), traits)


def test_a_cap_in_tokens_lets_through_what_is_exactly_its_share():
    ranking, traits = made([3, 2, 1], source=[0, 1, 2], tokens=[29, 71, 30])  # 100 * 0.29 is 28.99... in floating point
    assert picked(ranking, Budget.parse("100tokens"), make_choices(cap="29%"), traits).tolist() == [0]
