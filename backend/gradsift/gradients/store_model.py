"""A store's model: its encoder, its base weights, and the base weights with the LoRA of a checkpoint θ_1..θ_N.

Everything that needs a store's model gets it here: only this file checks that the tokenizer and the weights are the
store's.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch

from gradsift.data.encode import Encoded, Encoder, Piece
from gradsift.datastore.store import Store
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import Projector, make_projector
from gradsift.model.base import BaseModel
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.device import default_device, exclusive
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint


class StoreModel:
    """The model that a store was built with. Call `load`, `at` and `projector` only while holding the device: inside a
    `session`, or if the caller has taken the device already.

    base: the model, if the caller has one. exact: compute in fp32 even if the store was built in bf16, and keep the
    weights in main memory between sessions, for callers that come back; otherwise they are released after each session.
    """

    def __init__(self, store: Store, base: BaseModel | None = None, *, exact: bool = False) -> None:
        config, dtype = store.manifest.config, getattr(torch, store.manifest.dtype)
        self.store, self.exact = store, exact
        self.base = base or BaseModel(
            config.model, config.template, config.template_options, dtype, default_device(), exact=exact
        )
        self._lock = threading.Lock()
        self._gradients: PerExampleGradients | None = None
        self._adapter_config: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.base.device

    @property
    def window(self) -> int:
        """The most tokens that the model takes at once."""
        return self.base.window

    @property
    def max_length(self) -> int:
        """The most tokens of a pool row that the store uses; the rest is cut."""
        return min(self.store.manifest.config.max_length, self.base.window)

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch: as in the build, or half of that if fp32 takes twice the bytes of the build."""
        budget = self.store.manifest.token_budget
        return budget // 2 if self.exact and self.store.manifest.dtype != "float32" else budget

    @cached_property
    def encoder(self) -> Encoder:
        """The encoder the store was built with; no weights are loaded for it.

        Raises:
            StoreError: the tokenizer or template here is not the store's. ModelError: it cannot be loaded.
        """
        if self.base.encoder.fingerprint != self.store.manifest.encoder_fingerprint:
            raise StoreError(
                f"{self.store.path} was built with another tokenizer or template of {self.base.name}: restore the "
                "model's tokenizer or chat template, or build again with --restart."
            )
        return self.base.encoder

    def encode(self, rows: Sequence[int]) -> Sequence[Encoded]:
        """Pool rows, by number, as the store's build encoded them: their tokens are kept in the store.

        Raises:
            StoreError: the pool is damaged.
        """
        return self.store.tokens(rows)

    def pieces(self, rows: Sequence[int]) -> list[list[Piece]]:
        """The text of each row's supervised tokens, in the order of `encode`.

        Raises:
            StoreError: as `encoder`, or the pool is damaged.
        """
        conversations = self.store.texts(rows, raw=False)["conversation"]
        return [self.encoder.pieces(conversation, self.max_length) for conversation in conversations]

    @contextmanager
    def session(self, progress: Progress) -> Iterator[None]:
        """Hold the device with the weights on it; threads that share this object take turns.

        Raises:
            StoreError: the model here is not the store's. ModelError: it cannot be loaded.
        """
        with self._lock, exclusive(self.device, progress):
            try:
                self.load(progress)
                yield
            finally:  # before the device is released: its next holder needs the memory
                if self.exact:
                    self.base.park()
                else:
                    self._gradients = None
                    self.base.release()

    def load(self, progress: Progress) -> torch.nn.Module:
        """The base weights on the device, without any adapter unless `at` has attached one.

        Raises:
            StoreError: the model here is not the store's. ModelError: it cannot be loaded.
        """
        _ = self.encoder  # a mismatch shows before minutes of loading
        module = self.base.load(progress)
        if self.base.fingerprint != self.store.manifest.model_fingerprint:
            self.base.release()  # whoever asks again may have put the right weights there
            raise StoreError(
                f"{self.store.path} was built with another {self.base.name}: its weights have changed since. "
                "Restore them, or build again with --restart."
            )
        return module

    def at(self, epoch: int) -> tuple[PerExampleGradients, Checkpoint]:
        """The loaded model with the LoRA of checkpoint `epoch` (from 0), hooked, and that checkpoint.

        It is one model: the next call changes it.

        Raises:
            StoreError, CheckpointError: the checkpoint's files are missing or damaged.
        """
        checkpoint = self.store.checkpoint(epoch)
        if self._gradients is None or self._adapter_config != checkpoint.adapter_config:
            if self._gradients is not None:
                self._gradients.model.unload()
                self._gradients = None  # also where the next adapter cannot be attached
            peft = attach_adapter(self.base.module, self.store.path / "checkpoints" / self.store.epochs[epoch])
            self._gradients, self._adapter_config = PerExampleGradients(peft), checkpoint.adapter_config
        set_adapter(self._gradients.model, checkpoint.adapter)
        return self._gradients, checkpoint

    def projector(self, epoch: int) -> Projector:
        """Π of checkpoint `epoch`, which is attached.

        Raises:
            StoreError: this version of gradsift makes a projector that differs from the store's.
        """
        assert self._gradients is not None
        config, known = self.store.manifest.config, self.store.manifest.checkpoints[epoch].projector
        shapes = self._gradients.shapes
        projector = make_projector(config.projection, config.seed, epoch + 1, config.dim, shapes, self.device)
        if projector.id != known:
            raise StoreError(
                f"{self.store.path} was built with projector {known}, but this version of gradsift makes "
                f"{projector.id}: their vectors cannot be compared; build again with --restart."
            )
        return projector
