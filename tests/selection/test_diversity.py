"""Duplicate-aware selection: the greedy order against loops, the sketch against stored features, planted copies."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift import select
from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import read_targets
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.choices import make_choices
from gradsift.scoring.score_targets import score_targets
from gradsift.selection import diversity
from gradsift.selection.budget import Budget
from gradsift.selection.diversity import DIM, diverse_order, load_updates
from gradsift.selection.picks import Traits, picked, ranked, read_traits
from gradsift.selection.ranking import Ranking


def by_loop(score, updates, taken=0, enough=None) -> list[int]:
    """Choose one by one, recomputing every gain each time."""
    score = [value - min(0.0, *score) for value in score]
    order, left = list(range(taken)), list(range(taken, len(score)))
    while left and (enough is None or len(order) < enough):
        gains = []
        for z in left:
            cosines = [max(0.0, float(updates[z] @ updates[s])) for s in order]
            gains.append(score[z] * (1 - max(cosines, default=0.0) ** 2))
        best = left[int(np.argmax(gains))]
        order.append(best)
        left.remove(best)
    return order + left


def units(rng, n: int, dim: int = 6) -> torch.Tensor:
    vectors = torch.from_numpy(rng.normal(size=(n, dim)))
    return vectors / vectors.norm(dim=1, keepdim=True)


class TestOrder:
    @settings(deadline=None, max_examples=60)
    @given(st.integers(1, 30), st.integers(1, 8), st.integers(0, 3), st.integers(0, 99), st.booleans())
    def test_equals_loops(self, n, block, taken, seed, below_zero):
        """For any block size: gains are computed later, never differently."""
        rng = np.random.default_rng(seed)
        score, updates = rng.normal(size=n) if below_zero else rng.random(n), units(rng, n)
        score = np.sort(score)[::-1]
        taken = min(taken, n)
        enough = None if seed % 2 else n // 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diversity, "_BLOCK", block)
            result = diverse_order(score, updates, taken, enough)
        assert result.tolist() == by_loop(score, updates, taken, enough)

    def test_copies_come_last_and_rows_unlike_all_keep_their_order(self):
        updates = torch.eye(4)[[0, 0, 1, 1, 2, 3]]
        score = np.array([0.9, 0.89, 0.8, 0.7, 0.6, 0.5])
        assert diverse_order(score, updates).tolist() == [0, 2, 4, 5, 1, 3]

    def test_a_near_copy_brings_what_is_new_in_it(self):
        """cos 0.8: 36 % of 0.9 is less than 0.4 of a row unlike it and more than 0.3."""
        updates = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
        for other, order in ((0.4, [0, 2, 1]), (0.3, [0, 1, 2])):
            assert diverse_order(np.array([0.9, 0.9, other]), updates).tolist() == order

    def test_rows_that_pull_the_other_way_are_not_copies(self):
        updates = torch.tensor([[1.0, 0], [-1.0, 0], [1.0, 0]])
        assert diverse_order(np.array([0.9, 0.5, 0.8]), updates).tolist() == [0, 1, 2]

    def test_a_row_without_an_update_is_not_a_copy(self):
        updates = torch.tensor([[1.0, 0], [0.0, 0], [1.0, 0]])
        assert diverse_order(np.array([0.9, 0.5, 0.8]), updates).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def scoring(tiny_store, tiny_targets):
    return score_targets(tiny_store, read_targets(tiny_targets).rows)


def test_sketches_keep_the_cosines_of_the_stored_features(tiny_store):
    whole = []
    for epoch, weight in enumerate(tiny_store.weights):
        blocks = [rows for shard in tiny_store.shards("adam", epoch) for _, rows in shard.blocks()]
        whole.append(torch.cat(blocks) * weight**0.5)
    exact = torch.cat(whole, 1)
    positions = np.array([3, 0, 39, 17, 8, 21])
    result = load_updates(tiny_store, positions)
    assert result.shape == (6, DIM)
    np.testing.assert_allclose(result.norm(dim=1), 1, rtol=1e-5)
    error = result @ result.T - exact[positions] @ exact[positions].T
    assert error.abs().max() < 5 / DIM**0.5


class TestPicks:
    def test_are_those_of_the_greedy_order_in_rank_order(self, tiny_store, scoring):
        traits = read_traits(tiny_store, scoring)
        choices = make_choices(diverse=True)
        ranking = ranked(scoring, "less", choices, traits)
        chosen = by_loop(ranking.score[ranking.order], load_updates(tiny_store, ranking.order))[:6]
        result = picked(ranking, Budget.parse("6"), choices, traits)
        assert result.tolist() == sorted(ranking.order[chosen].tolist(), key=lambda at: ranking.rank[at])
        assert result.tolist() != picked(ranking, Budget.parse("6"), make_choices(), traits).tolist()

    @pytest.mark.parametrize("budget", ["10", "50tokens"])
    @pytest.mark.parametrize("cap", ["", "60%"])
    def test_copies_that_fill_the_head_are_no_reason_to_take_them(self, budget, cap):
        """The best 60 of 200 rows, six times the budget, are copies of one row: the next rows unlike it come first."""
        n = 200
        score = np.linspace(1, 0.2, n).astype(np.float32)
        updates = torch.eye(n)[[0] * 60 + list(range(60, n))]
        rows, tokens = np.arange(n), np.full(n, 5)
        ranking = Ranking("less", rows, score, rows + 1, np.zeros(n, dtype=int), rows)
        traits = Traits(rows, tokens, tokens, rows % 2, None, lambda positions, kind: updates[positions])
        choices = make_choices(diverse=True, **({"cap": cap} if cap else {}))
        result = picked(ranking, Budget.parse(budget), choices, traits).tolist()
        if not cap:
            chosen = by_loop(score, updates)[:10]
            assert result == sorted(chosen) == [0, *range(60, 69)]
        else:  # at most six of a source
            assert result[0] == 0
            assert all(row >= 60 for row in result[1:])
            assert len(result) == 10

    def test_with_decisions_caps_and_tokens(self, tiny_store, scoring):
        traits = read_traits(tiny_store, scoring)
        ranking = ranked(scoring, "less", make_choices(), traits)
        worst, best = (int(traits.rows[ranking.order[at]]) for at in (-1, 0))
        choices = make_choices(diverse=True, accepted=[worst], rejected=[best], cap="50%")
        rows = traits.rows[picked(ranking, Budget.parse("6"), choices, traits)].tolist()
        assert worst in rows
        assert best not in rows
        assert len(rows) == 6
        sources = tiny_store.pool().loc[rows, "source"]
        assert sources.value_counts().max() <= 4  # three of a source, and the accepted row
        few = picked(ranking, Budget.parse("100tokens"), make_choices(diverse=True), traits)
        assert 0 < traits.n_tokens[few].sum() <= 100

    @pytest.mark.timeout(60)
    def test_a_cap_that_lets_nothing_through_picks_nothing(self, tiny_store, scoring):
        traits, choices = read_traits(tiny_store, scoring), make_choices(diverse=True, cap="1%")
        ranking = ranked(scoring, "less", choices, traits)
        assert picked(ranking, Budget.parse("100tokens"), choices, traits).tolist() == []

    def test_a_ranking_that_is_not_by_score_is_refused(self, tiny_store, scoring):
        traits = read_traits(tiny_store, scoring)
        for fields in ({"aggregate": "round-robin"}, {"length_matched": True}):
            choices = make_choices(diverse=True, **fields)
            with pytest.raises(UsageError, match="Diverse picks"):
                picked(ranked(scoring, "less", choices, traits), Budget.parse("5"), choices, traits)


def test_of_planted_copies_one_of_each_is_picked(tiny_model, tmp_path):
    """30 % of the pool are exact or near copies (a word or two changed) of other rows: top-K takes several of a group,
    duplicate-aware selection one of each, as long as there are others to pick.
    """
    things, places = (
        ["cat", "dog", "capital", "country", "text", "mat"],
        ["box", "house", "garden", "city", "sea", "car"],
    )
    rows = [(f"where is the {a}?", f"the {a} is in the {b} and {' '.join([a, b] * (i % 4 + 1))}", f"{i}")
            for i, (a, b) in enumerate((a, b) for a in things for b in places)]  # fmt: skip
    plain = tmp_path / "plain.jsonl"
    targets = tmp_path / "targets.jsonl"
    write = lambda path, some: path.write_text("".join(  # noqa: E731
        json.dumps({"prompt": q, "completion": a, "id": name}) + "\n" for q, a, name in some))  # fmt: skip
    write(targets, [("where is the cat?", "the cat is in the house", "t")])
    config = BuildConfig(model=str(tiny_model), max_length=96, warmup_fraction=0.5, epochs=2, batch_size=4, lr=2e-3,
                         lora_rank=4, dim=512)  # fmt: skip
    write(plain, rows)
    quiet = Progress(quiet=True)
    store = build([plain], tmp_path / "plain", config, progress=quiet)
    scored = score_targets(store, read_targets(targets).rows)
    best = ranked(scored, "less", make_choices(), read_traits(store, scored)).order[:5]
    copied = [rows[int(name)] for name in store.pool().loc[scored.rows[best], "id"]]
    planted = [(q, a, f"{name}-exact-{k}") for q, a, name in copied for k in range(2)]
    planted += [(q.replace("where is", "so where is"), a, f"{name}-near") for q, a, name in copied]
    assert len(planted) / (len(rows) + len(planted)) == pytest.approx(0.3, abs=0.03)
    write(tmp_path / "all.jsonl", rows + planted)
    store = build([tmp_path / "all.jsonl"], tmp_path / "all", config, progress=quiet)
    groups = {}
    for diverse in (False, True):
        out = tmp_path / str(diverse)
        select(store, read_targets(targets).rows, "10", out, diverse=diverse)
        names = [line.split(",")[1] for line in (out / "picks.csv").read_text().splitlines()[1:]]
        groups[diverse] = [name.split("-")[0] for name in names]
    assert len(set(groups[True])) == 10
    assert len(set(groups[False])) < 7
