"""`gradsift bench scoring`: a scoring pass compared with a plain pass over the same mapped bytes.

The plain pass maps the same shards and adds up their bytes as 64-bit integers: with numpy on one thread, and with torch
on all threads. Plain and scoring passes are timed in turn, after a warm pass of each, and reported as the median of the
pairwise ratios. The store holds random numbers in real shards, without text or model. Working set: the peak of resident
memory, sampled every few milliseconds, without pages of mapped files, which the system can take back.
"""

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import torch

from gradsift.cli.bench.pairs import timed
from gradsift.cli.bench.synthetic import make_manifest
from gradsift.config import StoreDtype, make_config
from gradsift.datastore.manifest import SCHEMA_VERSION
from gradsift.datastore.metrics import METRICS, write_metrics
from gradsift.datastore.shards import decode, write_tensors
from gradsift.datastore.store import Store
from gradsift.runtime.progress import Progress
from gradsift.scoring.products import int8_pays, stored_products

VECTORS = (8, 57)  # target vectors of one pass; MMLU has 57 subtasks
RUNS, FEWER, SLOW = 9, 3, 20.0  # pairs of passes; fewer if a pass takes more than SLOW seconds
_SHARD = 4096
_SAMPLE = 64  # rows whose products are checked against float64


def bench_scoring(
    folder: Path, rows: int, dim: int, checkpoints: int, dtypes: tuple[StoreDtype, ...], progress: Progress
) -> dict[str, Any]:
    """Time both passes on a synthetic store of each dtype, made in `folder` unless it exists."""
    figures: dict[str, Any] = {"rows": rows, "dim": dim, "checkpoints": checkpoints}
    figures |= {"threads": torch.get_num_threads(), "int8_products": int8_pays()}
    for dtype in dtypes:
        name = f"{dtype}-{rows}x{dim}x{checkpoints}-v{SCHEMA_VERSION}"
        store = make_store(folder / name, rows, dim, checkpoints, dtype, progress)
        figures[dtype] = _measure(store, progress)
    return {"scoring": figures}


def make_store(
    path: Path, rows: int, dim: int, checkpoints: int, dtype: StoreDtype, progress: Progress, seed: int = 0
) -> Store:
    """A store of random features without text; a finished one is used as it is."""
    if (path / "manifest.json").is_file():
        return Store.open(path)
    config = make_config(model="synthetic", dim=dim, store_dtype=dtype)
    store = Store(path, make_manifest(rows, {"synthetic": rows}, config, checkpoints, {}))
    shards = [(epoch, index) for epoch in range(checkpoints) for index in range(len(store.shard_ranges))]
    progress.stage(f"synthetic-{dtype}", f"Writing a synthetic {dtype} store", len(shards), "shards")
    for epoch, index in shards:
        start, stop = store.shard_ranges[index]
        file, params = store.shard_path("adam", epoch, index), store.params("adam", epoch, index)
        file.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"params": params, "start": start, "stop": stop, "dtype": dtype}
        write_tensors(file, _rows(np.random.default_rng([seed, epoch, index]), stop - start, dim, dtype), metadata)
        columns = {"row": np.arange(start, stop), **dict.fromkeys(METRICS, np.ones(stop - start, np.float32))}
        metrics = store.shard_path("metrics", epoch, index)
        write_metrics(metrics, store.params("rds", epoch, index), start, 0, pa.table(columns))
        progress.advance()
    store.save_manifest()
    return store


def _rows(rng: np.random.Generator, count: int, dim: int, dtype: StoreDtype) -> dict[str, torch.Tensor]:
    width = dim // 8 if dtype == "bit" else dim
    q = torch.frombuffer(bytearray(rng.bytes(count * width)), dtype=torch.uint8).view(count, width)
    if dtype != "bit":
        q = q.view(torch.int8).clamp_(min=-127)
    if dtype == "fp16":
        q = q.half()
    length = q.float().norm(dim=1) if dtype != "bit" else torch.full((count,), dim**0.5)
    return {"q": q, "scale": 1 / length, "norm": torch.ones(count)}


def _measure(store: Store, progress: Progress) -> dict[str, Any]:
    seeded = torch.Generator().manual_seed(0)
    vectors = {count: torch.randn(count, store.manifest.config.dim, generator=seeded) for count in VECTORS}
    quiet = Progress(quiet=True)
    scored = {count: _score(store, some, quiet) for count, some in vectors.items()}
    plain = {"plain": lambda: _add_up(store, _by_numpy), "plain_threaded": lambda: _add_up(store, _by_torch)}
    passes: dict[str, Callable[[], object]] = {**plain, **{f"vectors_{count}": scored[count] for count in VECTORS}}
    with _working_set() as memory:
        warm = [timed(one)() for one in passes.values()]  # the first time every shard is hashed
    runs = RUNS if max(timed(one)() for one in passes.values()) < SLOW else FEWER
    progress.stage(f"measure-{store.manifest.config.store_dtype}", "Measuring", runs, "rounds")
    times: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(runs):
        for name, one in passes.items():
            times[name].append(timed(one)())
        progress.advance()
    shards = [shard for epoch in range(len(store.epochs)) for shard in store.shards("adam", epoch)]
    size = sum(shard.q.nbytes for shard in shards)
    scales = sum(shard.scale.nbytes + shard.norm.nbytes for shard in shards)
    speeds = {name: _speed(times, name, size) for name in passes}
    return {
        "feature_bytes": size,
        "feature_bytes_per_row": (size + scales) / (store.manifest.usable * len(store.epochs)),
        "runs": runs,
        "first_pass_s": round(warm[0], 3),
        **speeds,
        "largest_error": _error(store, vectors[VECTORS[0]], quiet),
        "working_set_mb": round(memory[0] / 1e6),
    }


def _speed(times: dict[str, list[float]], name: str, size: int) -> dict[str, float]:
    """Median seconds and speed of a pass, and the medians of its pairwise ratios to both plain ones."""
    seconds = statistics.median(times[name])
    figures = {"median_s": round(seconds, 4), "gb_per_s": round(size / seconds / 1e9, 2)}
    if name.startswith("vectors"):
        for beside in ("plain", "plain_threaded"):
            ratios = [one / other for one, other in zip(times[name], times[beside], strict=True)]
            figures[f"time_ratio_to_{beside}"] = round(statistics.median(ratios), 2)
    return figures


def _score(store: Store, vectors: torch.Tensor, progress: Progress) -> Callable[[], None]:
    def score() -> None:
        for epoch in range(len(store.epochs)):
            stored_products(store, "adam", epoch, vectors, progress)

    return score


def _add_up(store: Store, add: Callable[[torch.Tensor], int]) -> int:
    return sum(add(shard.q) for epoch in range(len(store.epochs)) for shard in store.shards("adam", epoch))


def _by_numpy(q: torch.Tensor) -> int:
    return int(q.numpy().view(np.int64).sum())


def _by_torch(q: torch.Tensor) -> int:
    return int(q.view(torch.int64).sum())


def _error(store: Store, vectors: torch.Tensor, progress: Progress) -> float:
    """The largest error of cosines of the first rows, compared with float64."""
    shard = store.shard("adam", 0, 0)
    exact = decode(shard.q[:_SAMPLE], shard.dtype).double() * shard.scale[:_SAMPLE, None] @ vectors.T.double()
    products = stored_products(store, "adam", 0, vectors, progress)["products"][: len(exact)]
    return float(((products - exact) / vectors.double().norm(dim=1)).abs().max())


@contextmanager
def _working_set() -> Iterator[list[int]]:
    """Yields a list whose only number becomes the peak of resident bytes that belong to no mapped file."""
    peak, done, process = [0], threading.Event(), psutil.Process()

    def watch() -> None:
        while not done.wait(0.005):
            memory = process.memory_info()
            peak[0] = max(peak[0], memory.rss - getattr(memory, "shared", 0))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
