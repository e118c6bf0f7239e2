"""Feature shards of a store, made one at a time by whatever process has the store and its model.

A shard that is present and intact is never touched: which process makes which shard, and in what order, leaves no trace
in the store.
"""

from collections.abc import Callable
from typing import Any

from gradsift.datastore.shards import ShardError, write_shard
from gradsift.datastore.store import Store
from gradsift.gradients.adam import Update, make_update
from gradsift.gradients.extract import FeatureExtractor, Features
from gradsift.gradients.store_model import StoreModel


class Extraction:
    """Makes shards of a store that has its checkpoints.

    model: the store's model, loaded on a device that the caller holds.
    """

    def __init__(self, model: StoreModel) -> None:
        self.model, self.store = model, model.store
        self._epoch: int | None = None
        self._extractor: FeatureExtractor | None = None

    def extract(self, epoch: int, index: int, done: Callable[[int], None] = lambda rows: None) -> Features:
        """Features of a shard's rows; `epoch` and `index` count from 0. `done(k)` is called after every k rows.

        Raises:
            StoreError: a checkpoint is damaged, or this version of gradsift makes another projector.
        """
        start, stop = self.store.shard_ranges[index]
        rows = self.model.encode(self.store.rows[start:stop].tolist())
        return self._at(epoch).extract(rows, done)

    def write(self, epoch: int, index: int, features: Features) -> None:
        """Write the files of a shard that are missing or damaged, leaving intact ones untouched."""
        store = self.store
        start, _ = store.shard_ranges[index]
        for kind in store.kinds:
            if not _intact(store, kind, epoch, index):
                x = features.representation if kind == "rds" else features.projected[kind]
                dtype = "fp16" if kind == "rds" else store.manifest.config.store_dtype
                write_shard(store.shard_path(kind, epoch, index), store.params(kind, epoch, index), start, dtype, x)
        if not _intact(store, "metrics", epoch, index):
            columns: dict[str, Any] = {
                "grad_norm": features.grad_norm.numpy(),
                "update_norm": features.update_norm.numpy(),
                "loss": features.loss.numpy(),
            }
            store.write_metrics(epoch, index, columns, features.splits)

    def _at(self, epoch: int) -> FeatureExtractor:
        if self._extractor is None or self._epoch != epoch:
            self._extractor = None  # its projector goes before the next one is made
            self._extractor, self._epoch = self._make_extractor(epoch), epoch
        return self._extractor

    def _make_extractor(self, epoch: int) -> FeatureExtractor:
        config = self.store.manifest.config
        gradients, checkpoint = self.model.at(epoch)
        updates: dict[str, Update] = {
            kind: make_update(kind, config.adam, checkpoint, self.model.device) for kind in config.gradients
        }
        return FeatureExtractor(gradients, self.model.projector(epoch), updates, self.model.token_budget)


def unfinished(store: Store) -> dict[int, list[int]]:
    """Epoch -> indices of the shards with a missing or damaged file; reads every file that is there."""
    todo: dict[int, list[int]] = {}
    for epoch in range(len(store.epochs)):
        for index in range(len(store.shard_ranges)):
            if any(not _intact(store, kind, epoch, index) for kind in (*store.kinds, "metrics")):
                todo.setdefault(epoch, []).append(index)
    return todo


def _intact(store: Store, kind: str, epoch: int, index: int) -> bool:
    try:
        store.read_metrics(epoch, index) if kind == "metrics" else store.shard(kind, epoch, index)
    except ShardError:
        return False
    return True
