"""One matrix, whatever the batch, order or process; it preserves inner products (method, sections 4 and 7.3)."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from gradsift.gradients.projection import RademacherProjector, SparseProjector, make_projector, projector_id

CPU = torch.device("cpu")
KINDS = ["sparse", "rademacher"]
DIM = 16
# Smaller than d, d itself, a multiple of d, and not a multiple.
SHAPES = {"short": (1, 5), "equal": (4, 4), "multiple": (8, 6), "ragged": (7, 11)}


def matrix(projector, name: str, size: int) -> np.ndarray:
    """Π restricted to a parameter as a (size, d) float64 array: each coordinate's image."""
    out = torch.zeros(size, projector.dim)
    projector.add(name, torch.eye(size), out)
    return out.double().numpy()


def project(projector, gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    out = torch.zeros(len(next(iter(gradients.values()))), projector.dim)
    for name, g in gradients.items():
        projector.add(name, g, out)
    return out


def random_gradients(batch: int, shapes=SHAPES, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(batch, int(np.prod(shape)), generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("kind", KINDS)
class TestOneMatrix:
    def test_equals_its_matrix_written_out(self, kind):
        projector = make_projector(kind, 3, 1, DIM, SHAPES, CPU)
        gradients = random_gradients(4)
        expected = sum(g.double().numpy() @ matrix(projector, name, g.shape[1]) for name, g in gradients.items())
        np.testing.assert_allclose(project(projector, gradients), expected, atol=1e-5)

    def test_the_batch_does_not_matter(self, kind):
        projector = make_projector(kind, 3, 1, DIM, SHAPES, CPU)
        gradients = random_gradients(7)
        together = project(projector, gradients)
        for cut in (1, 2, 3):
            pieces = [{n: g[at : at + cut] for n, g in gradients.items()} for at in range(0, 7, cut)]
            apart = torch.cat([project(projector, piece) for piece in pieces])
            torch.testing.assert_close(apart, together, rtol=0, atol=1e-5)
            if kind == "sparse":  # only additions in a fixed order: exactly the same bytes
                assert torch.equal(apart, together)

    def test_the_order_of_shapes_and_of_parameters_does_not_matter(self, kind):
        backwards = dict(reversed(SHAPES.items()))
        one, other = make_projector(kind, 3, 1, DIM, SHAPES, CPU), make_projector(kind, 3, 1, DIM, backwards, CPU)
        assert one.id == other.id
        for name, shape in SHAPES.items():
            np.testing.assert_array_equal(matrix(one, name, np.prod(shape)), matrix(other, name, np.prod(shape)))

    def test_a_parameter_alone_has_the_rows_it_has_among_others(self, kind):
        alone = make_projector(kind, 3, 1, DIM, {"ragged": (7, 11)}, CPU)
        among = make_projector(kind, 3, 1, DIM, SHAPES, CPU)
        np.testing.assert_array_equal(matrix(alone, "ragged", 77), matrix(among, "ragged", 77))

    def test_adds_to_what_is_there(self, kind):
        projector = make_projector(kind, 0, 1, DIM, SHAPES, CPU)
        g = random_gradients(2)["ragged"]
        fresh, begun = torch.zeros(2, DIM), torch.full((2, DIM), 5.0)
        projector.add("ragged", g, fresh)
        projector.add("ragged", g, begun)
        torch.testing.assert_close(begun, fresh + 5)

    @pytest.mark.parametrize(
        "other",
        [{"seed": 4}, {"checkpoint": 2}, {"dim": 24}, {"shapes": {"w": (11, 7)}}, {"shapes": {"u": (7, 11)}}],
        ids=["seed", "checkpoint", "dim", "shape", "name"],
    )
    def test_every_ingredient_changes_matrix_and_id(self, kind, other):
        options = {"seed": 3, "checkpoint": 1, "dim": DIM, "shapes": {"w": (7, 11)}, "device": CPU}
        one, two = make_projector(kind, **options), make_projector(kind, **{**options, **other})
        assert one.id != two.id
        a, b = (matrix(p, next(iter(p.shapes)), 77)[:, :DIM] for p in (one, two))
        assert not np.array_equal(a, b)

    def test_another_process_makes_the_same(self, kind):
        script = f"""
import hashlib, torch
from gradsift.gradients.projection import make_projector
p = make_projector({kind!r}, 3, 2, {DIM}, {SHAPES!r}, torch.device("cpu"))
out = torch.zeros(77, {DIM}); p.add("ragged", torch.eye(77), out)
print(p.id, hashlib.sha256(out.numpy().tobytes()).hexdigest())
"""
        answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        projector = make_projector(kind, 3, 2, DIM, SHAPES, CPU)
        here = matrix(projector, "ragged", 77).astype(np.float32).tobytes()
        assert answer.split() == [projector.id, hashlib.sha256(here).hexdigest()]

    @pytest.mark.parametrize("name", SHAPES)
    def test_inner_products_are_right_on_average(self, kind, name):
        """E⟨Πx, Πy⟩ = ⟨x, y⟩, and each draw is off by about ‖x‖‖y‖/√d."""
        size = int(np.prod(SHAPES[name]))
        rng = np.random.default_rng(1)
        x = rng.normal(size=size)
        y = 0.5 * x + rng.normal(size=size)
        draws = []
        for seed in range(2000):
            pi = matrix(make_projector(kind, seed, 1, DIM, {name: SHAPES[name]}, CPU), name, size)
            draws.append((x @ pi) @ (y @ pi))
        draws = np.array(draws)
        deviation = np.linalg.norm(x) * np.linalg.norm(y) / DIM**0.5
        assert abs(draws.mean() - x @ y) < 4 * max(draws.std(), 1e-9) / len(draws) ** 0.5 + 1e-4
        assert draws.std() < 2 * deviation

    def test_parameters_do_not_interfere_on_average(self, kind):
        """Different parameters share the d-vector; their cross terms must average to nothing."""
        shapes = {"a": (4, 5), "b": (4, 5)}
        x = torch.randn(1, 20, generator=torch.Generator().manual_seed(0))
        zero = torch.zeros(1, 20)
        draws = []
        for seed in range(1500):
            projector = make_projector(kind, seed, 1, DIM, shapes, CPU)
            one, two = project(projector, {"a": x, "b": zero}), project(projector, {"a": zero, "b": x})
            draws.append(float((one * two).sum()))
        assert abs(np.mean(draws)) < 4 * np.std(draws) / len(draws) ** 0.5
        assert np.std(draws) > 0


class TestSparse:
    def test_every_coordinate_has_one_sign_and_place(self):
        projector = SparseProjector(0, 1, DIM, SHAPES, CPU)
        for name, shape in SHAPES.items():
            pi = matrix(projector, name, np.prod(shape))
            np.testing.assert_array_equal(np.abs(pi).sum(1), 1)
            assert set(np.unique(pi)) <= {-1.0, 0.0, 1.0}

    def test_coordinates_of_one_block_never_meet(self):
        for seed in range(20):
            pi = matrix(SparseProjector(seed, 1, DIM, {"w": (7, 11)}, CPU), "w", 77)
            for start in range(0, 77, DIM):
                assert np.abs(pi[start : start + DIM]).sum(0).max() == 1

    def test_blocks_meet_with_probability_one_in_d(self):
        """Rotations are uniform and independent from block to block, signs are fair."""
        pi = matrix(SparseProjector(5, 1, DIM, {"w": (400, DIM)}, CPU), "w", 400 * DIM)
        place, sign = np.abs(pi).argmax(1).reshape(400, DIM), pi.sum(1)
        rotation = place[:, 0]
        assert ((place - rotation[:, None]) % DIM == np.arange(DIM)).all()
        counts = np.bincount(rotation, minlength=DIM)
        assert ((counts - 25) ** 2 / 25).sum() < 37.7  # χ² with 15 degrees of freedom, p = 0.001
        assert abs((rotation[1:] == rotation[:-1]).mean() - 1 / DIM) < 0.04
        assert abs(sign.mean()) < 4 / len(sign) ** 0.5

    def test_cosines_in_high_dimension_are_off_by_one_over_root_d(self):
        shapes = {f"layer{i}": (16, 576) for i in range(6)}
        generator = torch.Generator().manual_seed(0)
        common = {name: torch.randn(1, 16 * 576, generator=generator) for name in shapes}
        own = random_gradients(12, shapes)
        gradients = {name: own[name] + common[name] for name in shapes}
        exact = torch.cat(list(gradients.values()), 1)
        projected = project(SparseProjector(0, 1, 1024, shapes, CPU), gradients)
        cosines = [torch.nn.functional.normalize(x, dim=1) for x in (exact, projected)]
        off = (cosines[0] @ cosines[0].T - cosines[1] @ cosines[1].T)[np.triu_indices(12, 1)]
        assert off.square().mean().sqrt() < 1.5 / 1024**0.5


class TestRademacher:
    def test_entries_are_plus_or_minus_one_over_root_d(self):
        pi = matrix(RademacherProjector(0, 1, DIM, SHAPES, CPU), "ragged", 77)
        np.testing.assert_allclose(np.abs(pi), DIM**-0.5, rtol=1e-6)
        assert abs(np.sign(pi).mean()) < 4 / pi.size**0.5

    @pytest.mark.parametrize("dim", [8, 256, 264])
    def test_blocks_do_not_show(self, dim, monkeypatch):
        """The matrix does not depend on the size of its blocks."""
        shapes = {"w": (9, 7)}
        whole = matrix(RademacherProjector(2, 1, dim, shapes, CPU), "w", 63)
        for block in (1, 10, 63):
            monkeypatch.setattr(RademacherProjector, "block", block)
            np.testing.assert_array_equal(matrix(RademacherProjector(2, 1, dim, shapes, CPU), "w", 63), whole)

    def test_rows_are_independent(self):
        pi = np.sign(matrix(RademacherProjector(0, 1, 264, {"w": (5, 60)}, CPU), "w", 300))
        gram = (pi @ pi.T / 264)[np.triu_indices(300, 1)]
        assert abs(gram.mean()) < 4 * 264**-0.5 / len(gram) ** 0.5
        assert abs(gram.std() - 264**-0.5) < 0.1 * 264**-0.5


class TestNeverChanges:
    """Stores outlive versions. If one of these fails, the definition has changed and needs a new name for "v1"."""

    @pytest.mark.parametrize(("kind", "golden"), [("sparse", "1684e910c712e76b"), ("rademacher", "c917a4380e4d7f05")])
    def test_matrix(self, kind, golden):
        projector = make_projector(kind, 7, 2, DIM, SHAPES, CPU)
        signs = b"".join(np.sign(matrix(projector, n, np.prod(s))).astype(np.int8).tobytes() for n, s in SHAPES.items())
        assert hashlib.sha256(signs).hexdigest()[:16] == golden

    @pytest.mark.parametrize(("kind", "golden"), [("sparse", "fda03616f4d3ae6a"), ("rademacher", "b9ca7e2e26311d58")])
    def test_id(self, kind, golden):
        assert projector_id(kind, 7, 2, DIM, SHAPES) == golden
