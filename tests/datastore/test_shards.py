"""Quantized shards: how much accuracy is lost, how much space is saved, and that all damage is seen (method, 7.11)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradsift.datastore.shards import ShardError, decode, encode, read_shard, read_tensors, write_shard, write_tensors

DTYPES = ["int8", "fp16", "bit"]
# Error of an entry relative to the largest in its row: half a step of 1/127, half a unit in the last of 11 places.
BOUND = {"int8": 0.5 / 127, "fp16": 2**-11}


def vectors(rows: int, dim: int, seed: int = 0, heavy: bool = False) -> torch.Tensor:
    """Random rows of very different lengths; heavy: a few coordinates carry much of a row, as in real features."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, dim, generator=generator)
    if heavy:
        x = x * torch.randn(rows, dim, generator=generator).mul(0.7).exp()
        x += 0.7 * torch.randn(1, dim, generator=generator)  # real gradients share a direction
    return x * torch.logspace(-6, 4, rows)[:, None]


def unit(q, scale, dtype) -> torch.Tensor:
    return decode(q, dtype) * scale[:, None]


@pytest.mark.parametrize("dtype", DTYPES)
class TestEveryDtype:
    def test_rows_come_back_with_length_one_in_their_direction(self, dtype):
        x = vectors(20, 512)
        q, scale, norm = encode(x, dtype)
        decoded = unit(q, scale, dtype)
        torch.testing.assert_close(decoded.norm(dim=1), torch.ones(20), rtol=1e-5, atol=0)
        torch.testing.assert_close(norm, x.norm(dim=1))
        cosines = (decoded * torch.nn.functional.normalize(x, dim=1)).sum(1)
        assert cosines.min() > {"int8": 0.9995, "fp16": 0.999999, "bit": 0.75}[dtype]

    def test_scale_of_the_input_does_not_matter(self, dtype):
        x = vectors(4, 64)
        for factor in (1e-15, 1e-4, 1e12):
            torch.testing.assert_close(unit(*encode(x * factor, dtype)[:2], dtype), unit(*encode(x, dtype)[:2], dtype))

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    def test_rows_that_are_not_finite(self, dtype, bad):
        x = vectors(5, 32)
        x[1, 7] = bad
        x[3] = bad
        q, scale, norm = encode(x, dtype)
        assert scale[[1, 3]].tolist() == [0, 0]
        assert norm.isnan().tolist() == [False, True, False, True, False]
        decoded = unit(q, scale, dtype)
        assert decoded.isfinite().all()
        assert decoded[[1, 3]].abs().sum() == 0
        good = [0, 2, 4]
        torch.testing.assert_close(decoded[good], unit(*encode(x[good], dtype)[:2], dtype))

    def test_rows_of_zeros(self, dtype):
        q, scale, norm = encode(torch.zeros(2, 32), dtype)
        assert scale.tolist() == norm.tolist() == [0, 0]
        assert unit(q, scale, dtype).abs().sum() == 0

    def test_file_gives_back_what_was_written(self, dtype, tmp_path):
        x = vectors(7, 64)
        write_shard(tmp_path / "s" / "shard", "params", 40, dtype, x)
        shard = read_shard(tmp_path / "s" / "shard", "params")
        assert (shard.start, shard.stop, shard.dtype) == (40, 47, dtype)
        for result, expected in zip((shard.q, shard.scale, shard.norm), encode(x, dtype), strict=True):
            assert torch.equal(result, expected)
        decoded = torch.cat([rows for _, rows in shard.blocks()])
        assert torch.equal(decoded, unit(*encode(x, dtype)[:2], dtype))

    def test_blocks_cover_the_rows_in_order(self, dtype, tmp_path, monkeypatch):
        monkeypatch.setattr("gradsift.datastore.shards.BLOCK_BYTES", 3 * 64 * 4)
        x = vectors(8, 64)
        write_shard(tmp_path / "shard", "params", 0, dtype, x)
        pieces = list(read_shard(tmp_path / "shard", "params").blocks())
        assert [(offset, len(rows)) for offset, rows in pieces] == [(0, 3), (3, 3), (6, 2)]
        assert torch.equal(torch.cat([rows for _, rows in pieces]), unit(*encode(x, dtype)[:2], dtype))

    def test_pieces_are_the_rows_in_order(self, dtype, tmp_path):
        write_shard(tmp_path / "shard", "params", 0, dtype, vectors(8, 64))
        shard = read_shard(tmp_path / "shard", "params")
        for size, counts in ((3, [3, 3, 2]), (8, [8]), (100, [8])):
            pieces = [(offset, rows.clone()) for offset, rows in shard.pieces(size)]
            assert [len(rows) for _, rows in pieces] == counts
            assert [offset for offset, _ in pieces] == list(range(0, 8, size))
            assert torch.equal(torch.cat([rows for _, rows in pieces]), shard.q)

    def test_pieces_of_a_file_that_has_changed_are_refused(self, dtype, tmp_path):
        """The file is replaced by another intact one, or written into, after its hash was checked."""
        path = tmp_path / "shard"
        write_shard(path, "params", 0, dtype, vectors(8, 64))
        shard = read_shard(path, "params")
        write_shard(path, "params", 0, dtype, vectors(8, 64, seed=1))
        with pytest.raises(ShardError, match="has changed"):
            next(shard.pieces(3))
        shard = read_shard(path, "params")
        pieces = shard.pieces(3)
        next(pieces)
        path.write_bytes(path.read_bytes()[:-65])
        with pytest.raises(ShardError, match="was truncated while it was read"):
            list(pieces)
        with pytest.raises(ShardError, match="has changed"):
            next(shard.pieces(3))

    def test_equal_rows_are_equal_bytes(self, dtype, tmp_path):
        write_shard(tmp_path / "a", "params", 0, dtype, vectors(3, 64))
        write_shard(tmp_path / "b", "params", 0, dtype, vectors(3, 64))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_other_parameters_are_refused(self, dtype, tmp_path):
        write_shard(tmp_path / "a", "params", 0, dtype, vectors(3, 64))
        with pytest.raises(ShardError, match="other parameters"):
            read_shard(tmp_path / "a", "others")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([8, 64, 200]), st.sampled_from(["int8", "fp16"]))
def test_every_entry_is_within_half_a_step(seed, dim, dtype):
    x = vectors(3, dim, seed)
    peak = x.abs().amax(1, keepdim=True)
    q, scale, _ = encode(x, dtype)
    decoded = decode(q, dtype) / (127 if dtype == "int8" else 1)
    assert (decoded - x / peak).abs().max() <= BOUND[dtype] * 1.001
    assert (scale > 0).all()


def test_bits_are_signs():
    x = torch.tensor([[1.0, -2, 3, -4, 0.1, -0.1, 0, 5, -1, 1, 1, 1, 1, 1, 1, -1]])
    q, scale, _ = encode(x, "bit")
    assert q.shape == (1, 2)
    assert decode(q, "bit").tolist() == [[1, -1, 1, -1, 1, -1, 1, 1, -1, 1, 1, 1, 1, 1, 1, -1]]
    assert scale.tolist() == [0.25]


@pytest.mark.parametrize("heavy", [False, True], ids=["gaussian", "heavy-tailed"])
def test_the_best_rows_stay_the_best(heavy):
    """Top 5 % of 2,000 rows for 10 targets, by cosine with quantized rows against exact ones."""
    x, targets = vectors(2000, 1024, 1, heavy), vectors(10, 1024, 2, heavy)
    targets += torch.nn.functional.normalize(x[:10], dim=1) * targets.norm(dim=1, keepdim=True)
    targets = torch.nn.functional.normalize(targets, dim=1)
    best = (torch.nn.functional.normalize(x, dim=1) @ targets.T).topk(100, dim=0).indices
    overlap = {}
    for dtype in DTYPES:
        result = (unit(*encode(x, dtype)[:2], dtype) @ targets.T).topk(100, dim=0).indices
        shared = [len(set(best[:, j].tolist()) & set(result[:, j].tolist())) / 100 for j in range(10)]
        overlap[dtype] = sum(shared) / 10
    assert overlap["fp16"] >= 0.99
    assert overlap["int8"] >= 0.95
    assert overlap["bit"] >= 0.25  # five times chance


@pytest.mark.parametrize(("dtype", "most"), [("int8", 4096 + 8), ("fp16", 2 * 4096 + 8), ("bit", 4096 // 8 + 8)])
def test_bytes_per_row(tmp_path, dtype, most):
    """What a row costs on disk: entries, scale and norm; the header is paid for once per shard."""
    for rows in (10, 110):
        write_shard(tmp_path / f"{rows}", "p" * 32, 0, dtype, vectors(rows, 4096))
    assert (tmp_path / "110").stat().st_size - (tmp_path / "10").stat().st_size <= 100 * most + 16


class TestDamage:
    @pytest.fixture
    def shard(self, tmp_path):
        write_shard(tmp_path / "shard", "params", 3, "int8", vectors(2, 16))
        return tmp_path / "shard"

    def test_one_flipped_bit_anywhere_is_seen(self, shard):
        """Every bit of the file: length, header, its padding, and every byte of the payload."""
        data = bytearray(shard.read_bytes())
        unseen = []
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                shard.write_bytes(data)
                try:
                    read_shard(shard, "params")
                    unseen.append((at, bit))
                except ShardError:
                    pass
                data[at] ^= 1 << bit
        assert not unseen
        shard.write_bytes(data)
        read_shard(shard, "params")

    @given(st.integers(0, 10**6), st.sampled_from(["cut", "append", "zero"]))
    @settings(deadline=None, max_examples=60)
    def test_cut_grown_or_zeroed(self, tmp_path_factory, at, how):
        shard = tmp_path_factory.mktemp("damage") / "shard"
        write_shard(shard, "params", 3, "fp16", vectors(4, 16))
        data = shard.read_bytes()
        at %= len(data)
        spoiled = {"cut": data[:at], "append": data + data[at:], "zero": data[:at] + bytes(len(data) - at)}[how]
        shard.write_bytes(spoiled)
        with pytest.raises(ShardError):
            read_shard(shard, "params")

    def test_missing_and_foreign(self, shard, tmp_path):
        with pytest.raises(ShardError, match="missing"):
            read_shard(tmp_path / "none", "params")
        shard.write_bytes(b"x" * 100)
        with pytest.raises(ShardError, match="damaged"):
            read_shard(shard, "params")

    def test_tensors_of_any_kind(self, tmp_path):
        given = {"products": torch.arange(6.0).reshape(2, 3), "gram": torch.eye(3)}
        write_tensors(tmp_path / "t", given, {"kind": "adam"})
        tensors, about = read_tensors(tmp_path / "t")
        assert about == {"kind": "adam"}
        assert all(torch.equal(tensors[name], given[name]) for name in given)
