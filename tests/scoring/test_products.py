"""Inner products with stored rows against float64: exact integers, two-part vectors, ragged pieces, int8 and float."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.datastore.shards import decode, read_shard, write_shard
from gradsift.runtime.progress import Progress
from gradsift.scoring import products
from gradsift.scoring.products import int8_pays, multiplier, split

DTYPES = ["int8", "fp16", "bit"]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def multiplied(path, vectors, dtype, x) -> tuple[torch.Tensor, torch.Tensor]:
    """The products and their values in float64, for the same stored rows."""
    write_shard(path, "params", 0, dtype, x)
    shard = read_shard(path, "params")
    result = torch.full((len(x), len(vectors)), torch.nan)
    multiplier(vectors, dtype)(shard, result)
    return result, decode(shard.q, dtype).double() * shard.scale.double()[:, None] @ vectors.double().T


@pytest.fixture(params=[True, False], ids=["integers", "floats"])
def way(request, monkeypatch) -> bool:
    monkeypatch.setattr(products, "int8_pays", lambda: request.param)
    return request.param


@pytest.mark.parametrize("dtype", DTYPES)
class TestProducts:
    def test_equal_float64(self, dtype, way, tmp_path):
        vectors = drawn(5, 1024, seed=1) * torch.logspace(-12, 6, 5)[:, None]
        result, exact = multiplied(tmp_path / "s", vectors, dtype, drawn(40, 1024))
        error = (result - exact).abs() / vectors.double().norm(dim=1)
        assert error.max() <= 3e-6

    def test_a_vector_with_one_large_entry(self, dtype, way, tmp_path):
        """The worst case for two parts: every other entry is rounded to 2^-16 of the largest."""
        vectors = drawn(3, 2048, seed=1)
        vectors[:, 7] = torch.tensor([45.0, 450.0, -4500.0])
        result, exact = multiplied(tmp_path / "s", vectors, dtype, drawn(30, 2048))
        assert ((result - exact).abs() / vectors.double().norm(dim=1)).max() <= 5e-5

    def test_extremes_do_not_overflow_or_saturate(self, dtype, way, tmp_path):
        """Rows and vectors whose entries all have the largest magnitude, with one sign and with both."""
        signs = torch.stack([torch.ones(8192), torch.tensor([1.0, -1.0]).repeat(4096), -torch.ones(8192)])
        result, exact = multiplied(tmp_path / "s", signs, dtype, signs)
        whole = way and dtype != "fp16"  # the sum of 8,192 equal floats is off in the fifth place
        torch.testing.assert_close(result.double(), exact, rtol=1e-5 if whole else 1e-4, atol=1e-3 if whole else 1e-2)
        assert result[0, 0] == pytest.approx(8192**0.5, rel=1e-4)

    @pytest.mark.parametrize("rows", [1, 3, 7, 9])
    def test_ragged_pieces(self, dtype, way, rows, tmp_path, monkeypatch):
        """Pieces of three rows, the last one shorter."""
        monkeypatch.setattr(products, "PIECE", 3 * 64)
        monkeypatch.setattr("gradsift.datastore.shards.BLOCK_BYTES", 3 * 64 * 4)
        vectors = drawn(2, 64, seed=1)
        result, exact = multiplied(tmp_path / "s", vectors, dtype, drawn(rows, 64))
        torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-4)

    def test_rows_and_vectors_of_zeros_give_zero(self, dtype, way, tmp_path):
        x, vectors = drawn(4, 64), drawn(3, 64, seed=1)
        x[1], x[2, 5], vectors[2] = 0, torch.nan, 0
        result, _ = multiplied(tmp_path / "s", vectors, dtype, x)
        assert not result[[1, 2]].any()
        assert not result[:, 2].any()
        assert result[0, :2].all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 3), st.floats(-30, 30))
def test_parts_add_up_to_the_vector(seed, parts, size):
    vectors = drawn(3, 40, seed=seed).double() * 10.0**size
    columns, worth = split(vectors, parts)
    assert columns.shape == (40, 3 * parts)
    assert columns.dtype == torch.int8
    back = (columns.T.reshape(parts, 3, 40).double() * worth[:, :, None]).sum(0)
    allowed = vectors.abs().amax(1, keepdim=True) * 256.0 ** (1 - parts) / 254
    assert ((back - vectors).abs() <= allowed * (1 + 1e-9)).all()


def test_integers_are_used_where_they_are_exact(monkeypatch):
    """A product that adds pairs in 16 bits, as on some processors, a missing one, and a correct one."""
    vectors = drawn(1, 64)

    def saturating(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        sums = (rows.float() @ columns.float()).int()
        for row in range(4):  # the extreme rows of the trial
            pairs = (rows[row, :, None].int() * columns).view(-1, 2, columns.shape[1]).sum(1)
            sums[row] = pairs.clamp(-32768, 32767).sum(0)
        return sums

    def missing(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel")

    for broken in (saturating, missing):
        monkeypatch.setattr(torch, "_int_mm", broken)
        int8_pays.cache_clear()
        assert not int8_pays()
        assert isinstance(multiplier(vectors, "int8"), products._Floats)
    monkeypatch.undo()
    int8_pays.cache_clear()
    monkeypatch.setattr(products, "_seconds", lambda call: 0.0)  # a tie: not faster
    assert not int8_pays()
    int8_pays.cache_clear()


def test_vectors_too_long_for_exact_sums_are_floats(monkeypatch):
    monkeypatch.setattr(products, "int8_pays", lambda: True)
    assert isinstance(multiplier(torch.zeros(1, 1 << 16), "int8"), products._Integers)
    assert isinstance(multiplier(torch.zeros(1, (1 << 16) + 8), "int8"), products._Floats)


def test_a_pass_over_a_store(tiny_store):
    vectors = drawn(4, tiny_store.manifest.config.dim)
    result = products.stored_products(tiny_store, "adam", 1, vectors, Progress(quiet=True))
    shards = list(tiny_store.shards("adam", 1))
    rows = torch.cat([block for shard in shards for _, block in shard.blocks()]).double()
    torch.testing.assert_close(result["products"].double(), rows @ vectors.double().T, rtol=0, atol=1e-4)
    torch.testing.assert_close(result["norms"], torch.cat([shard.norm for shard in shards]))
    torch.testing.assert_close(result["gram"], vectors @ vectors.T)
