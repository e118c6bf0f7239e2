"""A few real batches of a build, timed: what `plan` estimates from.

The model is loaded, fresh LoRA attached and trained on a few of the warmup's batches, and the features of a few batches
are taken at the checkpoint that this leaves. Nothing is kept.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gradsift.builder.survey import Batch, Survey, padded
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded
from gradsift.gradients.adam import Update, make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import make_projector
from gradsift.model import load
from gradsift.model.batches import run_batches
from gradsift.model.lora import attach_adapter, attach_lora
from gradsift.model.loss import supervised_losses
from gradsift.runtime.device import default_device, exclusive, resolve_dtype, try_order
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint
from gradsift.training.trainer import make_optimizer
from gradsift.training.warmup import snapshot

if TYPE_CHECKING:
    from peft import PeftModel

WARMUP_SECONDS, FEATURE_SECONDS = 8.0, 16.0  # what the two parts may take, loading aside
_FEW = 32  # batches at most
_GOLDEN = 0.6180339887


@dataclass
class Timed:
    """Batches that were run. tokens: padded ones. largest: of a batch. seconds_per_token: the sum over the sum."""

    seconds: float = 0.0
    tokens: int = 0
    batches: int = 0
    largest: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        """Count one batch."""
        self.seconds, self.tokens, self.batches = self.seconds + seconds, self.tokens + tokens, self.batches + 1
        self.largest = max(self.largest, tokens)

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens


@dataclass
class Burst:
    """What was measured.

    parameters: of LoRA (P). hidden: numbers in a representation. load: seconds until the model is there. setup: seconds
    that every checkpoint's projector and moments take. loaded, trained, peak: the most bytes at once until the model
    was there, until the warmup's steps were over, and in all: of CUDA's allocations, or of this process's memory on a
    CPU. splits: batches halved for memory.
    """

    parameters: int = 0
    hidden: int = 0
    load: float = 0.0
    setup: float = 0.0
    loaded: int = 0
    trained: int = 0
    peak: int = 0
    splits: int = 0
    warmup: Timed = field(default_factory=Timed)
    features: Timed = field(default_factory=Timed)


def measure(found: Survey, warmup: Sequence[Batch], features: Sequence[Batch], progress: Progress) -> Burst:
    """Time a few of the warmup's and of the features' batches of rows, spread over their sizes.

    With no `warmup` batches only the features count.

    Raises:
        ModelError: the model cannot be loaded or given LoRA as asked. torch.OutOfMemoryError: one row does not fit.
    """
    device, burst, config = default_device(), Burst(), found.config
    with exclusive(device, progress):
        progress.stage("load", f"Loading {config.model} on {device}", 0, "")
        began = time.perf_counter()
        base = load.load_model(config.model, resolve_dtype(config.dtype, device), device).model
        try_order(base, progress)
        peft = _attach(base, config)
        burst.load, burst.loaded = time.perf_counter() - began, _peak(device)
        burst.parameters = sum(p.numel() for p in peft.parameters() if p.requires_grad)
        progress.stage("burst", "Timing a few batches", 0, "batches")
        given = warmup or [features[-1]]  # Adam's moments are needed in any case
        timed, checkpoint = _train(peft, found, given, progress)
        burst.trained = _peak(device)
        if warmup:
            burst.warmup = timed
        began = time.perf_counter()
        gradients = PerExampleGradients(peft)
        projector = make_projector(config.projection, config.seed, 1, config.dim, gradients.shapes, device)
        updates: dict[str, Update] = {
            kind: make_update(kind, config.adam, checkpoint, device) for kind in config.gradients
        }
        extractor = FeatureExtractor(gradients, projector, updates, config.resolve_token_budget(device.type))
        burst.setup = time.perf_counter() - began
        _extract(extractor, burst, found, features, progress)
        burst.peak = _peak(device)
    return burst


def _attach(base: torch.nn.Module, config: BuildConfig) -> "PeftModel":
    if not config.checkpoints:
        return attach_lora(base, config)
    peft = attach_adapter(base, Path(config.checkpoints[0]))
    for name, parameter in peft.named_parameters():  # an adapter that was saved comes frozen
        parameter.requires_grad_("lora_" in name)
    return peft


def _spread(lengths: Sequence[int], batches: Sequence[Batch]) -> list[Batch]:
    """The smallest batch, to warm up on, one of the middle, the largest, then golden-ratio steps through the sizes."""
    by_size = sorted(batches, key=lambda batch: -padded(lengths, batch))
    steps = (int(step * _GOLDEN % 1 * len(by_size)) for step in range(_FEW))
    return [by_size[-1], *(by_size[at] for at in dict.fromkeys((len(by_size) // 2, *steps)))]


def _timed(
    found: Survey,
    batches: Sequence[Batch],
    seconds: float,
    run: Callable[[list[Encoded]], None],
    progress: Progress,
) -> Timed:
    """Time `run` on batches, leaving out what would take too long; the first, which a process is slow at, counts if it
    is alone.
    """
    first, timed = Timed(), Timed()
    for number, batch in enumerate(_spread(found.lengths, batches)):
        known, tokens = timed if timed.batches else first, padded(found.lengths, batch)
        if number and timed.seconds + known.seconds_per_token * tokens > seconds:
            continue
        rows = found.encode(batch)
        began = time.perf_counter()
        run(rows)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        (timed if number else first).add(time.perf_counter() - began, tokens)
        progress.advance()
    return timed if timed.batches else first


def _train(peft: "PeftModel", found: Survey, batches: Sequence[Batch], progress: Progress) -> tuple[Timed, Checkpoint]:
    """Optimizer steps, one a batch, and the checkpoint they end with."""
    config = found.config
    optimizer, _ = make_optimizer(peft, config.lr, _FEW)
    torch.manual_seed(config.seed)  # dropout

    def step(rows: list[Encoded]) -> None:  # in halves where memory runs out, as the warmup does
        run_batches(rows, len(rows) * max(len(row.ids) for row in rows), backward)
        optimizer.step()
        optimizer.zero_grad()

    def backward(rows: Sequence[Encoded]) -> None:
        supervised_losses(peft, rows).mean().backward()

    peft.train()
    timed = _timed(found, batches, WARMUP_SECONDS, step, progress)
    return timed, snapshot(peft, optimizer, config.lr, config.model)


def _extract(
    extractor: FeatureExtractor, burst: Burst, found: Survey, batches: Sequence[Batch], progress: Progress
) -> None:
    def extract(rows: list[Encoded]) -> None:
        features = extractor.extract(rows)
        burst.splits, burst.hidden = burst.splits + features.splits, features.representation.shape[1]

    burst.features = _timed(found, batches, FEATURE_SECONDS, extract, progress)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; on a Mac bytes
    return most if sys.platform == "darwin" else most * 1024
