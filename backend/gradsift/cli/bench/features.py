"""`gradsift bench features`: the collector compared with the backward pass it uses, and with other programs.

Every peer gets the same rows, model and dtype, and is timed next to the collector, pair by pair:

* bare: the same packed batches through forward, supervised-only loss and backward to the LoRA parameters, as training
  would do it, with nothing kept. This is the limit: no collector can be consistently faster.
* recipe: the released code's way without its CUDA kernel (`recipe.py`). It takes minutes, so it gets 16 of the rows,
  evenly spread over the lengths, and its time is scaled to all rows.
* bergson: the strongest other collector, as a separate program in its own environment (`bergson.py`).
"""

import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from gradsift.cli.bench.bergson import Bergson
from gradsift.cli.bench.pairs import in_turn, timed
from gradsift.cli.bench.recipe import recipe
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded, Encoder, RenderError
from gradsift.data.pool import Row, read_rows, sample_rows
from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import make_projector
from gradsift.model import load
from gradsift.model.batches import pack
from gradsift.model.lora import attach_lora
from gradsift.model.loss import mean_losses, supervised_losses
from gradsift.runtime.device import default_device, exclusive, resolve_dtype
from gradsift.runtime.errors import UsageError
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint
from gradsift.training.warmup import snapshot

LONGEST = 256  # tokens; longer rows are left out
RECIPE_ROWS = 16  # rows in one call of its projector


def bench_features(
    pool: Sequence[str | Path],
    config: BuildConfig,
    rows: int,
    runs: int,
    environment: Path | None,
    progress: Progress,
) -> dict[str, Any]:
    """Time the collector on `rows` rows of `pool` in `runs` pairs with bare, a third of that with bergson, a ninth with
    the recipe. environment: the folder of the virtual environment that has bergson, or None to leave it out.

    Raises:
        UsageError: no row of the pool is short enough, or `environment` has no bergson.
        GradsiftError: pool or model cannot be read.
    """
    device = default_device()
    bergson = Bergson(environment) if environment else None
    slow, slowest = max(1, runs // 3), max(1, runs // 9)
    with exclusive(device, progress):
        bench = _Bench(_rows(pool, config, rows), config, device)
        progress.stage("measure", "Measuring", runs + slowest + (slow if bergson else 0), "pairs")
        bench.collect()  # run both once untimed, to warm up caches, threads and kernels
        bench.bare()
        bare = in_turn(timed(bench.collect), timed(bench.bare), runs, progress.advance)
        pairs = {"time_ratio_to_bare": bare.ratios()}
        few = _every(bench.rows, RECIPE_ROWS)
        scaled = len(bench.rows) / len(few)  # the recipe's time is proportional to the rows
        one_by_one = in_turn(timed(bench.collect), timed(lambda: bench.recipe(few)), slowest, progress.advance)
        pairs["speedup_over_recipe"] = [scaled * speedup for speedup in one_by_one.speedups()]
        if bergson:
            with bergson.prepared(bench.rows, bench.model, load.locate(config.model), bench.precision) as build:
                pairs["speedup_over_bergson"] = in_turn(timed(bench.collect), build, slow, progress.advance).speedups()
    return {"features": _report(bench, statistics.median(bare.ours), pairs)}


def _report(bench: "_Bench", median_s: float, pairs: dict[str, list[float]]) -> dict[str, Any]:
    tokens = sum(len(row.ids) for row in bench.rows)
    medians = {name: round(statistics.median(values), 3) for name, values in pairs.items()}
    return {
        "tokens_per_s": round(tokens / median_s, 1),
        "speedup_over_bergson": None,  # unless it is among the medians
        **medians,
        "dtype": bench.precision,
        "rank": bench.config.lora_rank,
        "dim": bench.config.dim,
        "rows": len(bench.rows),
        "tokens": tokens,
        "padded_tokens": bench.padded_tokens,
        "device": bench.extractor.device.type,
        "threads": torch.get_num_threads(),
        "runs": {name: len(values) for name, values in pairs.items()},
        "spread": {name: [round(min(values), 3), round(max(values), 3)] for name, values in pairs.items()},
    }


class _Bench:
    """The model with a briefly trained adapter, and each way of processing the rows."""

    def __init__(self, rows: list[Encoded], config: BuildConfig, device: torch.device) -> None:
        self.rows, self.config = rows, config
        dtype = resolve_dtype(config.dtype, device)
        self.precision = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
        budget = config.resolve_token_budget(device.type)
        lengths = [len(row.ids) for row in rows]
        packed = pack(lengths, budget)
        self.batches = [[rows[position] for position in batch] for batch in packed]
        self.padded_tokens = sum(len(batch) * lengths[batch[0]] for batch in packed)
        base = load.load_model(config.model, dtype, device).model
        self.model: Any = attach_lora(base, config).eval()
        self.checkpoint = self._train()
        gradients = PerExampleGradients(self.model)
        self.weights = gradients.weights
        projector = make_projector(config.projection, config.seed, 1, config.dim, gradients.shapes, device)
        update = make_update("adam", config.adam, self.checkpoint, device)
        self.extractor = FeatureExtractor(gradients, projector, {"adam": update}, budget)

    def _train(self) -> Checkpoint:
        """Two steps of AdamW, so that B is no longer zero and all moments are realistic."""
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=2e-4)
        for batch in self.batches[:1] * 2:
            mean_losses(supervised_losses(self.model, batch), batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return snapshot(self.model, optimizer, 2e-4, self.config.model)

    def collect(self) -> None:
        """Features of all rows, on the host."""
        self.extractor.extract(self.rows)

    def bare(self) -> None:
        """The same batches as `collect`, through the forward and backward pass alone."""
        with self._trainable():
            for batch in self.batches:
                losses = mean_losses(supervised_losses(self.model, batch), batch)
                losses.sum().backward()
                losses.cpu()  # waits for the device
                self.model.zero_grad()

    def recipe(self, rows: list[Encoded]) -> None:
        """Features of `rows` as the released code makes them."""
        with self._trainable():
            recipe(self.model, self.weights, rows, self.checkpoint, self.config.dim).cpu()

    @contextmanager
    def _trainable(self) -> Iterator[None]:
        for weight in self.weights.values():
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in self.weights.values():
                weight.requires_grad_(False)


def _every(rows: list[Encoded], count: int) -> list[Encoded]:
    """`count` of the rows (or all), evenly spread over their lengths."""
    by_length = sorted(rows, key=lambda row: len(row.ids))
    count = min(count, len(rows))
    return [by_length[(2 * i + 1) * len(rows) // (2 * count)] for i in range(count)]


def _rows(pool: Sequence[str | Path], config: BuildConfig, count: int) -> list[Encoded]:
    """A seeded sample of `count` usable rows that are short enough (fewer if the pool has no more)."""
    encoder = Encoder(load.load_tokenizer(config.model), config.template, config.template_options)
    rows, _ = sample_rows(read_rows(pool), 4 * count, config.seed)
    random.Random(config.seed).shuffle(rows)
    sample = list(islice(_short(rows, encoder), count))
    if not sample:
        raise UsageError(f"The pool has no usable row of at most {LONGEST} tokens to measure with.")
    return sample


def _short(rows: list[Row], encoder: Encoder) -> Iterator[Encoded]:
    for row in rows:
        if not row.reason:
            with suppress(RenderError):
                encoded = encoder.encode(row.conversation)
                if encoded.n_answer and len(encoded.ids) <= LONGEST:
                    yield encoded
