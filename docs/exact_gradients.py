"""Whole per-example gradients on disk, with which fidelity.py compares everything.

    CACHE/pool.jsonl, mmlu.jsonl, ...       the sample: rows of the pool, one target of every subtask
    CACHE/warmup/, CACHE/checkpoints/       an ordinary warmup on a fifth of these rows
    CACHE/fp32/epoch-1/00000.safetensors    g (examples, P) fp32 and loss (examples,) of some of pool + targets

Everything is made in pieces of a minute or so, each a file that is whole or absent; `pieces` yields those in order.
P is 1.84 million for SmolLM2 with rank 16, so 500 examples take 3.6 GB per checkpoint.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded, Encoder
from gradsift.data.pool import Row, read_rows
from gradsift.data.targets import read_targets, write_targets
from gradsift.datastore.shards import read_tensors, write_tensors
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model import load
from gradsift.model.lora import attach_adapter, attach_lora, set_adapter
from gradsift.runtime import atomic
from gradsift.runtime.device import resolve_dtype
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint
from gradsift.training.schedule import choose_rows
from gradsift.training.warmup import Warmup

SETS = ("mmlu", "bbh", "tydiqa")
LONGEST = 256  # tokens of a pool row; longer ones are left out, so that the measurement stays affordable
PIECE = 12  # examples whose whole gradients are held at once
CPU = torch.device("cpu")

Piece = tuple[Path, Callable[[Path], None]]


def settings(model: str, rank: int) -> BuildConfig:
    """A build's parameters for a few hundred rows: ten warmup steps per epoch, two checkpoints."""
    return BuildConfig(
        model=model, template=load.demo_template().read_text(encoding="utf-8"), warmup_fraction=0.2, epochs=2,
        batch_size=8, lr=2e-4, lora_rank=rank, max_length=LONGEST, dtype="fp32",
    )  # fmt: skip


class Whole:
    """The identity in place of a projector: d = P, every parameter in a place of its own."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        ends = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes.values())]).tolist()
        self.places = dict(zip(shapes, pairwise(ends), strict=True))
        self.dim = ends[-1]

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        start, stop = self.places[name]
        out[:, start:stop] += gradients


@dataclass
class Gradients:
    """The sample and its gradients. data: holds pool/ and targets/. rows: of the pool, equally many of every source."""

    data: Path
    cache: Path
    config: BuildConfig
    rows: int

    def pieces(self) -> Iterator[Piece]:
        """(file, what makes it) up to the checkpoints, in the order needed."""
        yield self.cache / "pool.jsonl", self._sample_pool
        for name in SETS:
            yield self.cache / f"{name}.jsonl", self._sample_targets
        yield self.cache / "warmup" / "log.json", self._warm_up

    def gradient_pieces(self, dtype: str, epoch: int) -> Iterator[Piece]:
        """Likewise for the whole gradients at checkpoint `epoch` (from 0). dtype: of the base weights, fp32 or bf16."""
        for index, path in enumerate(self._files(dtype, epoch)):
            yield path, partial(self._extract, dtype=dtype, epoch=epoch, index=index)

    # -- the sample ---------------------------------------------------------------------------------------------------

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(load.load_tokenizer(self.config.model), self.config.template, self.config.template_options)

    @cached_property
    def pool(self) -> list[Row]:
        return list(read_rows([self.cache / "pool.jsonl"]))

    @cached_property
    def targets(self) -> dict[str, list[Row]]:
        """Set -> its targets, in the order of their gradients, which follow the pool's."""
        return {name: read_targets(self.cache / f"{name}.jsonl").rows for name in SETS}

    @cached_property
    def examples(self) -> list[Encoded]:
        """Pool, then targets, as tokens."""
        rows = [*self.pool, *(row for name in SETS for row in self.targets[name])]
        return [self.encoder.encode(row.conversation) for row in rows]

    def _sample_pool(self, path: Path) -> None:
        """A seeded draw of equally many rows of every file, at most `LONGEST` tokens each, short ones first."""
        files = sorted((self.data / "pool").glob("*.jsonl"))
        sample: list[tuple[int, Row]] = []  # with lengths, by which it is sorted so that batches are full
        for file in files:
            rows = [row for row in read_rows([file]) if not row.reason]
            limit = len(sample) + self.rows // len(files)
            for position in np.random.default_rng(self.config.seed).permutation(len(rows)):
                encoded = self.encoder.encode(rows[position].conversation)
                if encoded.n_answer and len(encoded.ids) <= LONGEST and len(sample) < limit:
                    sample.append((len(encoded.ids), rows[position]))
        sample.sort(key=lambda pair: pair[0])
        atomic.write_bytes(path, b"".join(row.raw + b"\n" for _, row in sample))

    def _sample_targets(self, path: Path) -> None:
        """The first target of every subtask that fits the model's window."""
        window, chosen = load.model_window(self.config.model), {}
        for row in read_targets(self.data / "targets" / path.name).rows:
            if row.subtask not in chosen and len(self.encoder.encode(row.conversation).ids) <= window:
                chosen[row.subtask] = row
        write_targets(path, chosen.values())

    # -- the model ----------------------------------------------------------------------------------------------------

    def _warm_up(self, path: Path) -> None:
        base = load.load_model(self.config.model, torch.float32, CPU).model
        chosen = choose_rows(len(self.pool), self.config.warmup_fraction, self.config.seed)
        rows = [self.examples[position] for position in chosen]
        path.parent.mkdir(exist_ok=True)
        warmup = Warmup(self.config, path.parent, self.cache / "checkpoints", Progress(quiet=True))
        warmup.run(attach_lora(base, self.config), rows)

    def checkpoint(self, epoch: int) -> Checkpoint:
        return Checkpoint.load(self.cache / "checkpoints" / f"epoch-{epoch + 1}")

    @cached_property
    def weights(self) -> np.ndarray:
        """w_i = η̄_i / Σ η̄."""
        rates = np.array([self.checkpoint(epoch).mean_lr for epoch in range(self.config.epochs)])
        return rates / rates.sum()

    @cached_property
    def losses(self) -> list[float]:
        """The warmup's loss, step by step."""
        return [step["loss"] for step in json.loads((self.cache / "warmup" / "log.json").read_text())]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.checkpoint(0).adapter.items()}

    # -- gradients ----------------------------------------------------------------------------------------------------

    def read(self, dtype: str, epoch: int) -> Iterator[tuple[str, torch.Tensor]]:
        """Every parameter's name and the gradients of all examples (pool, then targets), (examples, n) fp32."""
        files = [read_tensors(path)[0]["g"] for path in self._files(dtype, epoch)]
        for name, (start, stop) in Whole(self.shapes).places.items():
            yield name, torch.cat([g[:, start:stop] for g in files])

    def done(self, dtype: str, epoch: int) -> bool:
        return all(path.is_file() for path in self._files(dtype, epoch))

    def _files(self, dtype: str, epoch: int) -> list[Path]:
        count = -(-len(self.examples) // PIECE)
        return [self.cache / dtype / f"epoch-{epoch + 1}" / f"{index:05d}.safetensors" for index in range(count)]

    def _extract(self, path: Path, dtype: str, epoch: int, index: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = FeatureExtractor(self._model(dtype, epoch), Whole(self.shapes), {"sgd": lambda name, g: g}, 1024)
        features = whole.extract(self.examples[index * PIECE : (index + 1) * PIECE])
        metadata = {"dtype": dtype, "epoch": epoch, "piece": index}
        write_tensors(path, {"g": features.projected["sgd"], "loss": features.loss}, metadata)

    def _model(self, dtype: str, epoch: int) -> PerExampleGradients:
        """The model at a checkpoint; the last one is kept."""
        if self._loaded[0] != (dtype, epoch):
            base = load.load_model(self.config.model, resolve_dtype(dtype, CPU), CPU).model
            checkpoint = self.checkpoint(epoch)
            peft = attach_adapter(base, self.cache / "checkpoints" / f"epoch-{epoch + 1}")
            set_adapter(peft, checkpoint.adapter)
            self._loaded = (dtype, epoch), PerExampleGradients(peft)
        assert self._loaded[1] is not None
        return self._loaded[1]

    _loaded: tuple[tuple[str, int], PerExampleGradients | None] = (("", -1), None)
