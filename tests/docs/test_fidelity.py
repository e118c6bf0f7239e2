"""docs/fidelity.py: its measures against their definitions, and all of it once on a toy."""

import json

import numpy as np
import pytest
import torch
from exact_gradients import CPU, SETS, Gradients, settings
from fidelity import FORMS, PLAIN, Fidelity, overlap, scatter, spearman, work
from measured import BEGIN, END, fill, table

from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.projection import make_projector

DIMS = (64, 256, 512)


class TestMeasures:
    def test_spearman_is_the_sum_over_squared_rank_differences(self):
        a, b = np.array([0.1, 0.9, 0.4, 0.5, -0.3]), np.array([3.0, 4.0, 1.0, 9.0, 2.0])
        differences = np.array([2, 5, 3, 4, 1]) - np.array([3, 4, 1, 5, 2])
        assert spearman(a, b) == pytest.approx(1 - 6 * (differences**2).sum() / (5 * 24))
        assert spearman(a, -np.exp(a)) == pytest.approx(-1)

    def test_equal_scores_share_a_rank(self):
        a, b = np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])
        assert spearman(a, b) == pytest.approx(np.corrcoef([1.5, 1.5, 3], [1, 2, 3])[0, 1])

    def test_overlap_counts_the_best_rows_of_both(self):
        a, b = np.arange(20.0), np.arange(20.0)
        b[19] = -1  # of the best four by a, 19 is now the worst, and 15 comes in
        assert overlap(a, b, 0.2) == 0.75
        assert overlap(a, b, 0.05) == 0
        assert overlap(np.zeros(20), np.zeros(20), 0.1) == 1

    def test_scatter_is_of_what_rows_do_not_share(self):
        a = np.array([1.0, 2.0, 6.0])
        assert scatter(a, a + 5) == 0
        assert scatter(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 1


def test_a_page_keeps_what_is_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nWords.\n")
    fill(page, table(["name", "n"], [["a", "1"]]))
    assert page.read_text() == f"# Title\n\n{BEGIN}\n\n| name | n |\n| --- | --: |\n| a | 1 |\n\n{END}\n\nWords.\n"
    fill(tmp_path / "new.md", "text")
    assert (tmp_path / "new.md").read_text() == f"{BEGIN}\n\ntext\n\n{END}\n"


@pytest.fixture(scope="module")
def empty(tmp_path_factory, tiny_model):
    """To be measured on six rows of two sources and two subtasks a set, with the two-layer model."""
    data, cache = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("cache")
    words = ["the", "cat", "sat", "on", "the", "mat", "and", "the", "dog", "sat", "on", "the", "cat"]

    def write(path, rows):
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def row(i, **more):
        turns = [("user", " ".join(words[i:])), ("assistant", " ".join(words[: i % 5 + 1]))]
        return {**more, "id": f"{i}", "messages": [{"role": role, "content": content} for role, content in turns]}

    for number, source in enumerate(("one", "two")):
        write(data / "pool" / f"{source}.jsonl", [row(i + number, dataset=source) for i in range(8)])
    for number, name in enumerate(SETS):
        write(data / "targets" / f"{name}.jsonl", [row(i + number, subtask=f"s{i % 2}") for i in range(3)])
    return Fidelity(Gradients(data, cache, settings(str(tiny_model), rank=2), rows=6), DIMS, 256)


@pytest.fixture(scope="module")
def toy(empty):
    """The same, measured: nothing in no time, and the rest when asked again."""
    assert work(empty.pieces(), 0) == 0
    assert "Not measured yet" in empty.report()
    assert work(empty.pieces(), float("inf")) == sum(1 for _ in empty.pieces())
    assert work(empty.pieces(), float("inf")) == 0
    return empty


class TestToy:
    def test_the_sample(self, toy):
        assert [row.source for row in toy.gradients.pool].count("one") == 3
        assert [len(toy.gradients.targets[name]) for name in SETS] == [2, 2, 2]

    def test_projections_are_the_librarys(self, toy):
        """A projection of the kept gradients is what a pass over the rows gives, with Γ for rows and g for targets."""
        gradients, n = toy.gradients, len(toy.gradients.pool)
        for kind, key in (("sparse", "sparse-256"), ("rademacher", None)):
            projector = make_projector(kind, 0, 2, 256, gradients.shapes, CPU)
            updates = {
                "adam": make_update("adam", "paper", gradients.checkpoint(1), CPU), "sgd": lambda name, g: g
            }  # fmt: skip
            model = gradients._model("fp32", 1)
            features = FeatureExtractor(model, projector, updates, 256).extract(gradients.examples).projected
            parts = [toy.sums(f"rademacher-{part}", 1)["vectors"] for part in range(6)]
            kept = toy.sums("fp32", 1)[key] if key else torch.stack(parts).sum(0)
            torch.testing.assert_close(kept[:n], features["adam"][:n], rtol=1e-3, atol=1e-3)
            torch.testing.assert_close(kept[n:], features["sgd"][n:], rtol=1e-3, atol=1e-5)
            if kind == "sparse":
                torch.testing.assert_close(toy.sums("fp32", 1)["plain"], features["sgd"], rtol=1e-3, atol=1e-5)

    def test_exact_scores_are_equation_2(self, toy):
        gradients, n = toy.gradients, len(toy.gradients.pool)
        for form in (*FORMS, PLAIN):
            total = np.zeros((n, len(gradients.examples) - n))
            for epoch, weight in enumerate(gradients.weights):
                kind = "sgd" if form == PLAIN else "adam"
                update = make_update(kind, form, gradients.checkpoint(epoch), CPU)
                pairs = list(gradients.read("fp32", epoch))
                rows = torch.cat([update(name, g[:n]) for name, g in pairs], 1).double()
                targets = torch.cat([g[n:] for _, g in pairs], 1).double()
                cosines = torch.nn.functional.cosine_similarity(rows[:, None], targets[None], dim=2)
                total += weight * cosines.numpy()
            scores = toy.exact([0, 1], form)
            for index, name in enumerate(SETS):
                np.testing.assert_allclose(scores[name], total[:, 2 * index : 2 * index + 2].max(1), atol=1e-5)

    def test_the_report_holds_every_comparison(self, toy):
        report = toy.report()
        assert "not measured" not in report
        assert report.index("The spread") < report.index("What each shortcut moves")
        toy._path("bf16", 1).unlink()
        assert "fp32, exact (checkpoint 1 alone)" in toy.report()
        assert "not measured" not in toy.report()
        for epoch in (0, 1):
            toy._path("rademacher-3", epoch).unlink()
        assert toy.report().count("not measured") == 2 * len(SETS)
        assert work(toy.pieces(), float("inf")) == 3
