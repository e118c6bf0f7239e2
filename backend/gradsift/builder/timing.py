"""A few batches of a build, timed, from which `plan` estimates.

The model is loaded with fresh LoRA layers and trained on a few warmup batches; at the resulting checkpoint the features
of a few batches are computed. Nothing is saved.
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

WARMUP_SECONDS, FEATURE_SECONDS = 8.0, 16.0  # limits of the two parts, without loading
_FEW = 32  # maximum number of batches to time
_GOLDEN = 0.6180339887


@dataclass
class Timed:
    """Timed batches. tokens: padded tokens in total. largest: tokens of the largest batch."""

    seconds: float = 0.0
    tokens: int = 0
    batches: int = 0
    largest: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        """Add one batch."""
        self.seconds, self.tokens, self.batches = self.seconds + seconds, self.tokens + tokens, self.batches + 1
        self.largest = max(self.largest, tokens)

    @property
    def seconds_per_token(self) -> float:
        """All seconds over all tokens."""
        return self.seconds / self.tokens


@dataclass
class Burst:
    """The measurements.

    parameters: LoRA's P. hidden: size of a representation. load: seconds to load the model. setup: seconds for one
    checkpoint's projector and moments. loaded, trained, peak: peak bytes after loading, after the warmup's steps and at
    the end, of CUDA's allocations or, on a CPU, of this process. splits: batches halved for lack of memory.
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


def measure(survey: Survey, warmup: Sequence[Batch], features: Sequence[Batch], progress: Progress) -> Burst:
    """Time a few `warmup` and `features` batches, spread over their sizes; `warmup` may be empty.

    Raises:
        ModelError: the model cannot be loaded, or LoRA cannot be attached. torch.OutOfMemoryError: one row does not
        fit.
    """
    device, burst, config = default_device(), Burst(), survey.config
    with exclusive(device, progress):
        progress.stage("load", f"Loading {config.model} on {device}", 0, "")
        start = time.perf_counter()
        base = load.load_model(config.model, resolve_dtype(config.dtype, device), device).model
        try_order(base, progress)
        peft = _attach(base, config)
        burst.load, burst.loaded = time.perf_counter() - start, _peak(device)
        burst.parameters = sum(p.numel() for p in peft.parameters() if p.requires_grad)
        progress.stage("burst", "Timing a few batches", 0, "batches")
        batches = warmup or [features[-1]]  # Adam's moments are needed in any case
        timed, checkpoint = _train(peft, survey, batches, progress)
        burst.trained = _peak(device)
        if warmup:
            burst.warmup = timed
        start = time.perf_counter()
        gradients = PerExampleGradients(peft)
        projector = make_projector(config.projection, config.seed, 1, config.dim, gradients.shapes, device)
        updates: dict[str, Update] = {
            kind: make_update(kind, config.adam, checkpoint, device) for kind in config.gradients
        }
        extractor = FeatureExtractor(gradients, projector, updates, config.resolve_token_budget(device.type))
        burst.setup = time.perf_counter() - start
        _extract(extractor, burst, survey, features, progress)
        burst.peak = _peak(device)
    return burst


def _attach(base: torch.nn.Module, config: BuildConfig) -> "PeftModel":
    if not config.checkpoints:
        return attach_lora(base, config)
    peft = attach_adapter(base, Path(config.checkpoints[0]))
    for name, parameter in peft.named_parameters():  # a loaded adapter is frozen
        parameter.requires_grad_("lora_" in name)
    return peft


def _spread(lengths: Sequence[int], batches: Sequence[Batch]) -> list[Batch]:
    """The smallest batch as a warm-up, a middle one, the largest, then golden-ratio steps through the sizes."""
    by_size = sorted(batches, key=lambda batch: -padded(lengths, batch))
    steps = (int(step * _GOLDEN % 1 * len(by_size)) for step in range(_FEW))
    return [by_size[-1], *(by_size[at] for at in dict.fromkeys((len(by_size) // 2, *steps)))]


def _timed(
    survey: Survey,
    batches: Sequence[Batch],
    seconds: float,
    run: Callable[[list[Encoded]], None],
    progress: Progress,
) -> Timed:
    """Time `run` on batches, skipping those that would take too long. The first one is slow and counts only if it is
    the only one.
    """
    first, timed = Timed(), Timed()
    for number, batch in enumerate(_spread(survey.lengths, batches)):
        basis, tokens = timed if timed.batches else first, padded(survey.lengths, batch)
        if number and timed.seconds + basis.seconds_per_token * tokens > seconds:
            continue
        rows = survey.encode(batch)
        start = time.perf_counter()
        run(rows)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        (timed if number else first).add(time.perf_counter() - start, tokens)
        progress.advance()
    return timed if timed.batches else first


def _train(peft: "PeftModel", survey: Survey, batches: Sequence[Batch], progress: Progress) -> tuple[Timed, Checkpoint]:
    """One optimizer step per batch, timed, and the checkpoint after the last one."""
    config = survey.config
    optimizer, _ = make_optimizer(peft, config.lr, _FEW)
    torch.manual_seed(config.seed)  # dropout

    def step(rows: list[Encoded]) -> None:  # halved when memory runs out, as in the warmup
        run_batches(rows, len(rows) * max(len(row.ids) for row in rows), backward)
        optimizer.step()
        optimizer.zero_grad()

    def backward(rows: Sequence[Encoded]) -> None:
        supervised_losses(peft, rows).mean().backward()

    peft.train()
    timed = _timed(survey, batches, WARMUP_SECONDS, step, progress)
    return timed, snapshot(peft, optimizer, config.lr, config.model)


def _extract(
    extractor: FeatureExtractor, burst: Burst, survey: Survey, batches: Sequence[Batch], progress: Progress
) -> None:
    def extract(rows: list[Encoded]) -> None:
        features = extractor.extract(rows)
        burst.splits, burst.hidden = burst.splits + features.splits, features.representation.shape[1]

    burst.features = _timed(survey, batches, FEATURE_SECONDS, extract, progress)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; on a Mac bytes
    return most if sys.platform == "darwin" else most * 1024
