"""Feature shards of a store, made one at a time by whatever process has the store and its base model.

A shard that is present and whole is never touched: who makes which, in what order, does not show in the store.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gradsift.data.encode import Encoded, Encoder
from gradsift.datastore.shards import ShardError, write_shard
from gradsift.datastore.store import Store
from gradsift.gradients.adam import Update, make_update
from gradsift.gradients.extract import FeatureExtractor, Features
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import Projector, make_projector
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.device import default_device, try_order
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint


class Extraction:
    """Makes shards of `store`, which has its checkpoints.

    base: the store's base model, to which the checkpoint at work is attached. encoder, max_length: what the store's
    rows were encoded with.
    """

    def __init__(self, store: Store, base: torch.nn.Module, encoder: Encoder, max_length: int) -> None:
        self.store, self.base, self.encoder, self.max_length = store, base, encoder, max_length
        self.device = next(base.parameters()).device
        self._epoch: int | None = None
        self._extractor: FeatureExtractor | None = None

    @classmethod
    def load(cls, store: Store, progress: Progress) -> "Extraction":
        """Load the store's model and tokenizer onto this process's device, whose `turn` it is.

        Raises:
            ModelError: they cannot be loaded. StoreError: the model here is another one than the store's.
        """
        config, device = store.manifest.config, default_device()
        loaded = load.load_model(config.model, getattr(torch, store.manifest.dtype), device)
        check_model(store, loaded.fingerprint)
        try_order(loaded.model, progress)
        encoder = Encoder(load.load_tokenizer(config.model), config.template)
        if encoder.fingerprint != store.manifest.encoder_fingerprint:
            raise StoreError(
                f"The tokenizer or chat template of {config.model} on this machine is not the one that {store.path} "
                "was begun with: bring the same version of the model here."
            )
        return cls(store, loaded.model, encoder, min(config.max_length, loaded.window))

    def extract(self, epoch: int, index: int, done: Callable[[int], None] = lambda rows: None) -> Features:
        """Features of a shard's rows; `epoch` and `index` count from 0. `done(k)` is called after every k rows.

        Raises:
            StoreError: a checkpoint is damaged, or this version of gradsift makes another projector.
        """
        start, stop = self.store.shard_ranges[index]
        rows = encode_rows(self.store, self.encoder, self.store.rows[start:stop].tolist(), self.max_length)
        return self._at(epoch).extract(rows, done)

    def write(self, epoch: int, index: int, features: Features) -> None:
        """Write the files of a shard that are not there yet, leaving whole ones untouched."""
        store = self.store
        start, _ = store.shard_ranges[index]
        for kind in store.kinds:
            if not _whole(store, kind, epoch, index):
                x = features.representation if kind == "rds" else features.projected[kind]
                dtype = "fp16" if kind == "rds" else store.manifest.config.store_dtype
                write_shard(store.shard_path(kind, epoch, index), store.params(kind, epoch, index), start, dtype, x)
        if not _whole(store, "metrics", epoch, index):
            columns: dict[str, Any] = {
                "grad_norm": features.grad_norm.numpy(),
                "update_norm": features.update_norm.numpy(),
                "loss": features.loss.numpy(),
            }
            store.write_metrics(epoch, index, columns, features.splits)

    def close(self) -> None:
        """Take the last checkpoint's layers off the base model again."""
        if self._extractor is not None:
            self._extractor.gradients.model.unload()
        self._epoch = self._extractor = None

    def _at(self, epoch: int) -> FeatureExtractor:
        if self._extractor is None or self._epoch != epoch:
            self.close()
            self._extractor, self._epoch = self._make_extractor(epoch), epoch
        return self._extractor

    def _make_extractor(self, epoch: int) -> FeatureExtractor:
        config = self.store.manifest.config
        gradients, checkpoint, projector = attach_checkpoint(self.store, epoch, self.base)
        updates: dict[str, Update] = {
            kind: make_update(kind, config.adam, checkpoint, self.device) for kind in config.gradients
        }
        return FeatureExtractor(gradients, projector, updates, self.store.manifest.token_budget)


def attach_checkpoint(
    store: Store, epoch: int, base: torch.nn.Module
) -> tuple[PerExampleGradients, Checkpoint, Projector]:
    """The base model with a checkpoint's LoRA layers and weights, hooked; the checkpoint; its projector.

    Raises:
        StoreError: the checkpoint is damaged, or this version of gradsift makes another projector.
    """
    config, checkpoint = store.manifest.config, store.checkpoint(epoch)
    peft = attach_adapter(base, store.path / "checkpoints" / store.epochs[epoch])
    set_adapter(peft, checkpoint.adapter)
    gradients = PerExampleGradients(peft)
    device = next(base.parameters()).device
    projector = make_projector(config.projection, config.seed, epoch + 1, config.dim, gradients.shapes, device)
    known = store.manifest.checkpoints[epoch].projector
    if projector.id != known:
        raise StoreError(
            f"{store.path} was built with projector {known}, another projector than this version makes "
            f"({projector.id}): their vectors cannot be compared; build with --restart."
        )
    return gradients, checkpoint, projector


def check_model(store: Store, fingerprint: str) -> None:
    """Raise `StoreError` where a loaded model is not the one that the store was begun with."""
    if fingerprint != store.manifest.model_fingerprint:
        raise StoreError(
            f"{store.path} was built with another {store.manifest.config.model}: its weights have changed since."
        )


def encode_rows(store: Store, encoder: Encoder, rows: Sequence[int], max_length: int) -> list[Encoded]:
    """Pool rows, by number, as tokens."""
    texts = store.texts(rows)
    messages = [[(turn["role"], turn["content"]) for turn in turns] for turns in texts["messages"]]
    return [encoder.encode(turns, prefix, max_length) for turns, prefix in zip(messages, texts["prefix"], strict=True)]


def unfinished(store: Store) -> dict[int, list[int]]:
    """Epoch -> indices of the shards of which some file is missing or not whole; reads every file that is there."""
    todo: dict[int, list[int]] = {}
    for epoch in range(len(store.epochs)):
        for index in range(len(store.shard_ranges)):
            if any(not _whole(store, kind, epoch, index) for kind in (*store.kinds, "metrics")):
                todo.setdefault(epoch, []).append(index)
    return todo


def _whole(store: Store, kind: str, epoch: int, index: int) -> bool:
    try:
        store.read_metrics(epoch, index) if kind == "metrics" else store.shard(kind, epoch, index)
    except ShardError:
        return False
    return True
