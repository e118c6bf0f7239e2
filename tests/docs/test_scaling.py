"""docs/scaling.py: the cost model against the paper's own figures and the formulas it states."""

import pytest
from scaling import LARGE, PAPER, Cost, flatten, paper_cost, report


class TestCost:
    def test_the_papers_pool(self):
        cost = paper_cost()
        assert cost.rows == 270_679
        assert cost.tokens == pytest.approx(95.8e6, rel=1e-3)
        assert cost.store_bytes(16) == pytest.approx(17.7e9, rel=5e-3)  # Table 4
        assert cost.store_bytes(8) == 270_679 * 4 * (8192 + 8)
        assert cost.scoring_bytes(285) == 270_679 * 285 * 4 * 4

    def test_a_token_costs_four_times_the_parameters_and_little_else(self):
        cost = paper_cost()
        assert 1 < cost.token_flops / (4 * cost.parameters) < 1.05
        assert Cost(1, 2048).token_flops - Cost(1, 0).token_flops == 32 * 6 * 2048 * 4096

    def test_hours_are_linear(self):
        cost = paper_cost()
        warmup, features = cost.hours(0.3)
        assert cost.hours(0.3, 8) == pytest.approx((warmup / 8, features / 8))
        assert Cost(2 * cost.rows, 2 * cost.tokens).hours(0.3) == pytest.approx((2 * warmup, 2 * features))
        assert cost.hours(0.6)[0] == pytest.approx(warmup / 2)
        assert features < PAPER["features"]


def test_figures_are_flattened():
    found = {"a": {"b": 1234, "c": 0.123456}, "d": [1, 2], "e": None}
    assert flatten(found) == [("a.b", "1,234"), ("a.c", "0.1235"), ("d", "[1, 2]"), ("e", "None")]


def test_the_page_says_what_is_measured_and_what_is_not():
    assert report({}).count("not measured yet") == 3
    row = {"rows": 1000, "seconds": 1e-6, "bytes": 50.0}
    text = report({"features": {"tokens_per_s": 200}, "house": {"search": row}})
    assert "| tokens_per_s | 200 |" in text
    assert f"| search: time * | 0.3 s | {LARGE * 1e-6:.1f} s |" in text
    assert "| search: memory * | 13.5 MB | 0.5 GB |" in text
