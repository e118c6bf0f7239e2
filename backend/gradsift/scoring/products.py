"""Inner products of a few vectors with every stored row, streamed from the shards as fast as they can be read.

Stored int8 rows are multiplied as they are, in int8 matrix products with exact int32 sums. Each entry of a vector is
written as two int8 numbers, the one worth 256 times the other, which keeps 16 bits: an entry is off by at most 2^-16 of
the vector's largest. Bits become int8 with one mask, in pieces that fit the cache: bit j of a byte stays in its place
and counts 2^j, so the vector's entry is divided by 2^j; a third int8 number keeps 16 bits even of entries divided by
128. fp16 rows are expanded to fp32 block by block, and so are all rows if int8 products are inexact or slower here.
"""

import time
from collections.abc import Callable
from functools import lru_cache

import torch

from gradsift.datastore.shards import Shard
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress

PIECE = 1 << 22  # bytes of int8 rows in one product: enough to share among threads, few enough for a cache
_PARTS = {"int8": 2, "bit": 3}
_LONGEST = 1 << 16  # most entries whose int8 products cannot overflow an int32
_BITS = torch.tensor([1, 2, 4, 8, 16, 32, 64, -128], dtype=torch.int8)  # value of bit j of a byte as int8


def stored_products(
    store: Store, kind: str, epoch: int, vectors: torch.Tensor, progress: Progress
) -> dict[str, torch.Tensor]:
    """One pass over the stored rows of one kind at one checkpoint. vectors: (K, d) fp32.

    Returns products (n, K) ⟨vector k, unit row⟩ and norms (n,) of the scored rows, and the vectors' Gram matrix (K, K).
    """
    products = torch.empty(store.manifest.usable, len(vectors))
    norms = torch.empty(store.manifest.usable)
    multiply: dict[str, Callable[[Shard, torch.Tensor], None]] = {}
    for shard in store.shards(kind, epoch):
        if shard.dtype not in multiply:
            multiply[shard.dtype] = multiplier(vectors, shard.dtype)
        multiply[shard.dtype](shard, products[shard.start : shard.stop])
        norms[shard.start : shard.stop] = shard.norm
        progress.advance(shard.stop - shard.start)
    gram = vectors @ vectors.T
    if store.scored.all():
        return {"products": products, "norms": norms, "gram": gram}
    kept = torch.from_numpy(store.scored)
    return {"products": products[kept], "norms": norms[kept], "gram": gram}


def multiplier(vectors: torch.Tensor, dtype: str) -> Callable[[Shard, torch.Tensor], None]:
    """A function that writes a shard's products with `vectors` (K, d) into (rows, K) fp32; it prepares them once."""
    if dtype in _PARTS and vectors.shape[1] <= _LONGEST and int8_pays():
        return _Integers(vectors, dtype)
    return _Floats(vectors)


class _Floats:
    def __init__(self, vectors: torch.Tensor) -> None:
        self.columns = vectors.T.contiguous()

    def __call__(self, shard: Shard, out: torch.Tensor) -> None:
        for offset, rows in shard.blocks():
            torch.mm(rows, self.columns, out=out[offset : offset + len(rows)])


class _Integers:
    def __init__(self, vectors: torch.Tensor, dtype: str) -> None:
        self.dtype, (self.count, self.dim) = dtype, vectors.shape
        exact = vectors.double()
        self.less = exact.sum(1) if dtype == "bit" else torch.zeros(self.count, dtype=torch.float64)
        if dtype == "bit":  # Σ ±v = 2 Σ (bit · v) - Σ v, bit by bit: all first bits of the bytes, all second ones, ...
            exact = 2 * exact.view(self.count, -1, 8).transpose(1, 2) / _BITS[:, None].double()
        self.columns, self.worth = split(exact.reshape(self.count, self.dim), _PARTS[dtype])
        self.size = max(1, PIECE // self.dim)
        self.piece = torch.empty(self.size if dtype == "bit" else 0, 8, self.dim // 8, dtype=torch.int8)

    def __call__(self, shard: Shard, out: torch.Tensor) -> None:
        sums = torch.empty(len(shard.q), self.columns.shape[1], dtype=torch.int32)
        for start, q in shard.pieces(self.size):
            torch._int_mm(self._expanded(q), self.columns, out=sums[start : start + len(q)])
        parts = sums.view(len(sums), -1, self.count)
        torch.mul((parts * self.worth).sum(1) - self.less, shard.scale[:, None], out=out)

    def _expanded(self, q: torch.Tensor) -> torch.Tensor:
        if self.dtype == "int8":
            return q
        rows = self.piece[: len(q)]
        return torch.bitwise_and(q.view(torch.int8)[:, None, :], _BITS[:, None], out=rows).view(len(q), self.dim)


def split(vectors: torch.Tensor, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors (K, d) float64 as int8 columns (d, parts · K), and the value of one unit of each, (parts, K) float64.

    The sum over parts of column · worth is the vector, up to 1/254 of 256^(1-parts) of its largest entry.
    """
    most = 127 * sum(256**i for i in range(parts))
    unit = vectors.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / most
    rest = (vectors / unit[:, None]).round().long()
    columns = []
    for _ in range(parts):  # the lowest eight bits, from -128 to 127; the rest has them as zeros
        low = (rest + 128) % 256 - 128
        columns.append(low.to(torch.int8))
        rest = (rest - low) // 256
    powers = torch.tensor([256.0**i for i in range(parts)], dtype=torch.float64)
    return torch.cat(columns).T.contiguous(), powers[:, None] * unit


@lru_cache(maxsize=1)
def int8_pays() -> bool:
    """Whether int8 products are exact and faster than float ones on this machine; measured once per process.

    `torch._int_mm` is not public: it may be missing, some processors add pairs in 16 bits, and without a fast kernel
    it falls back to plain loops.
    """
    rows = torch.randint(-127, 128, (512, 4096), dtype=torch.int8, generator=torch.Generator().manual_seed(0))
    rows[:2], rows[2:4] = 127, -127
    columns = rows.flip(0)[:16].T.contiguous()
    columns[:, :2], columns[:, 2:4] = -128, 127
    try:
        if not torch.equal(torch._int_mm(rows, columns).long(), rows.long() @ columns.long()):
            return False
    except (AttributeError, RuntimeError):
        return False
    floats = columns.float()
    return _seconds(lambda: torch._int_mm(rows, columns)) < _seconds(lambda: rows.float() @ floats)


def _seconds(call: Callable[[], object]) -> float:
    """The shortest of five runs."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
