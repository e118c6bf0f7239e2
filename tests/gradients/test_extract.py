"""One pass over rows gives the same results in row order, whatever the packing (method, sections 2 and 5)."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import (
    adam_of_one,
    gradient_of_one,
    loss_of_one,
    random_rows,
    relative_error,
    representation_of_one,
    with_lora,
)
from transformers import AutoModelForCausalLM

from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import make_projector
from gradsift.model.batches import pack
from gradsift.training.checkpoint import Checkpoint

CPU = torch.device("cpu")
ROWS = random_rows(300, [9, 30, 14, 2, 30, 17, 28, 61, 8], seed=2)
ALIKE = random_rows(300, [30, 28, 29, 27, 30, 26, 25, 28, 29], seed=3)  # one batch if the budget allows


@pytest.fixture(scope="module")
def model(tiny_model):
    return with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))


@pytest.fixture(scope="module")
def checkpoint(model):
    """Moments such as a few steps on small gradients leave behind."""
    generator = torch.Generator().manual_seed(1)
    moments = {}
    for name, shape in PerExampleGradients(model).shapes.items():
        m = torch.randn(shape, generator=generator) * 1e-3
        moments[name] = (m, m.square() * 0.1)
    return Checkpoint({}, {}, moments, 5, (0.9, 0.999), 1e-8, 1e-5)


def extractor(model, checkpoint, kinds=("adam", "sgd", "sign"), budget=64, dim=128):
    gradients = PerExampleGradients(model)
    projector = make_projector("sparse", 0, 1, dim, gradients.shapes, CPU)
    updates = {kind: make_update(kind, "paper", checkpoint, CPU) for kind in kinds}
    return FeatureExtractor(gradients, projector, updates, budget)


class TestPack:
    @given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 200))
    def test_every_row_once_within_the_budget(self, lengths, budget):
        batches = pack(lengths, budget)
        assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
        assert lengths[batches[0][0]] == max(lengths)

    def test_similar_lengths_go_together(self):
        assert pack([5, 50, 6, 49], 100) == [[1, 3], [2, 0]]


class TestExtract:
    def test_equals_row_by_row_reference(self, model, checkpoint):
        result = extractor(model, checkpoint).extract(ROWS)
        projector = make_projector("sparse", 0, 1, 128, PerExampleGradients(model).shapes, CPU)
        for at, row in enumerate(ROWS):
            g = gradient_of_one(model, row)
            updates = {"sgd": g, "adam": {name: self._adam(g[name], checkpoint.moments[name]) for name in g}}
            for kind, update in updates.items():
                expected = torch.zeros(1, 128)
                for name in projector.shapes:
                    projector.add(name, update[name].float()[None], expected)
                assert relative_error(result.projected[kind][at], expected[0]) < 1e-4, (kind, at)
            norms = {kind: torch.cat(list(update.values())).norm() for kind, update in updates.items()}
            assert relative_error(result.grad_norm[at], norms["sgd"]) < 1e-5
            assert relative_error(result.update_norm[at], norms["adam"]) < 1e-5
            assert relative_error(result.loss[at], loss_of_one(model, row).detach()) < 1e-5
            assert relative_error(result.representation[at], representation_of_one(model, row)) < 1e-5

    @staticmethod
    def _adam(g, moments):
        m, v = (moment.flatten().tolist() for moment in moments)
        return torch.tensor([adam_of_one(x, m[i], v[i], 5, "paper") for i, x in enumerate(g.tolist())])

    @pytest.mark.parametrize("budget", [1, 61, 100, 10_000])
    def test_packing_changes_nothing_but_rounding(self, model, checkpoint, budget):
        expected = extractor(model, checkpoint, budget=64).extract(ROWS)
        result = extractor(model, checkpoint, budget=budget).extract(ROWS)
        for name in ("grad_norm", "update_norm", "loss", "representation"):
            assert relative_error(getattr(result, name), getattr(expected, name)) < 1e-5
        assert relative_error(result.projected["sgd"], expected.projected["sgd"]) < 1e-5
        assert relative_error(result.projected["adam"], expected.projected["adam"]) < 1e-4

    def test_twice_the_same_bytes(self, model, checkpoint):
        one, two = (extractor(model, checkpoint).extract(ROWS) for _ in range(2))
        assert all(torch.equal(one.projected[kind], two.projected[kind]) for kind in one.projected)
        assert torch.equal(one.representation, two.representation)

    @pytest.mark.parametrize(
        ("kinds", "main"), [(("sgd", "adam"), "adam"), (("sign", "sgd"), "sign"), (("sgd",), "sgd")]
    )
    def test_update_norm_is_adams_where_there_is_one(self, model, checkpoint, kinds, main):
        result = extractor(model, checkpoint, kinds).extract(ROWS)
        assert set(result.projected) == set(kinds)
        alone = extractor(model, checkpoint, (main,)).extract(ROWS)
        assert torch.equal(result.update_norm, alone.update_norm)

    def test_progress_counts_every_row(self, model, checkpoint):
        counts = []
        extractor(model, checkpoint).extract(ROWS, counts.append)
        assert sum(counts) == len(ROWS)

    def test_a_batch_that_does_not_fit_halves_the_budget_from_there_on(self, model, checkpoint, monkeypatch):
        expected = extractor(model, checkpoint, budget=10_000).extract(ALIKE)
        run = PerExampleGradients.run

        def small(self, batch, sink):
            if len(batch) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(self, batch, sink)

        monkeypatch.setattr(PerExampleGradients, "run", small)
        counts = []
        halved = extractor(model, checkpoint, budget=10_000)
        result = halved.extract(ALIKE, counts.append)
        assert result.splits == 2  # 9 -> 4 + 4 + 1 -> 2 + 2 + 2 + 2 + 1
        assert sum(counts) == len(ALIKE)
        assert max(counts) == 2
        assert relative_error(result.projected["sgd"], expected.projected["sgd"]) < 1e-5
        assert halved.extract(ALIKE).splits == 0  # the next shard begins with the size that fitted

    def test_one_row_that_does_not_fit_is_an_error(self, model, checkpoint, monkeypatch):
        def full(self, batch, sink):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(PerExampleGradients, "run", full)
        with pytest.raises(torch.OutOfMemoryError):
            extractor(model, checkpoint).extract(ROWS[:2])

    def test_memory_that_runs_out_half_way_back_leaves_nothing_behind(self, model, checkpoint, monkeypatch):
        """The error comes from inside the backward pass, after some modules were projected already."""
        expected = extractor(model, checkpoint, budget=10_000).extract(ALIKE)
        halved = extractor(model, checkpoint, budget=10_000)
        add, last = halved.projector.add, next(iter(halved.projector.shapes))

        def small(name, gradients, out):
            if name == last and len(gradients) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            add(name, gradients, out)

        monkeypatch.setattr(halved.projector, "add", small)
        result = halved.extract(ALIKE)
        assert result.splits == 2
        assert relative_error(result.projected["sgd"], expected.projected["sgd"]) < 1e-5
        assert relative_error(result.grad_norm, expected.grad_norm) < 1e-5
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
