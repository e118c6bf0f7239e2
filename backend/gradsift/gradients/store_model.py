"""A store's model at θ_1..θ_N, ready for questions that the stored features cannot answer.

Building and scoring go through every checkpoint once and load for themselves; this is for who comes back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gradsift.datastore.store import Store
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.device import default_device, try_order, turn
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint


class StoreModel:
    """The base model of a store with LoRA, loaded at the first `session`, safe to share between threads.

    The arithmetic is fp32 also where the store was built in bf16, whose weights are then used as they are. Between
    sessions the model waits in main memory, so that a card is free for other runs.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.device = default_device()
        self._lock = threading.Lock()
        self._base: Any = None
        self._gradients: PerExampleGradients | None = None
        self._adapter_config: dict[str, Any] = {}

    @property
    def token_budget(self) -> int:
        """Padded tokens of a batch: the store's, or half of it where the store counted on half the bytes."""
        budget = self.store.manifest.token_budget
        return budget if self.store.manifest.dtype == "float32" else budget // 2

    @contextmanager
    def session(self, progress: Progress) -> Iterator[None]:
        """The model to oneself: its lock, the card's turn, the weights on the card.

        Raises:
            StoreError: the base model here is another one than the store's. ModelError: it cannot be loaded.
        """
        with self._lock, turn(self.device, progress):
            base = self._load(progress)
            try:
                try_order(base.to(self.device), progress)
                yield
            finally:
                if self.device.type != "cpu":
                    base.to("cpu")
                    torch.cuda.empty_cache()

    def at(self, name: str) -> tuple[PerExampleGradients, Checkpoint]:
        """The model at the checkpoint `name` ("epoch-1"), inside a `session` only.

        Raises:
            StoreError, CheckpointError: the checkpoint's files are missing or damaged.
        """
        checkpoint = self.store.checkpoint(self.store.epochs.index(name))
        if self._gradients is None or self._adapter_config != checkpoint.adapter_config:
            if self._gradients is not None:
                self._base, self._gradients = self._gradients.model.unload(), None
            peft = attach_adapter(self._base, self.store.path / "checkpoints" / name)
            self._gradients, self._adapter_config = PerExampleGradients(peft), checkpoint.adapter_config
        set_adapter(self._gradients.model, checkpoint.adapter)
        return self._gradients, checkpoint

    def _load(self, progress: Progress) -> Any:
        if self._base is None:
            manifest = self.store.manifest
            progress.say(f"Loading {manifest.config.model}")
            loaded = load.load_model(manifest.config.model, getattr(torch, manifest.dtype), torch.device("cpu"))
            if loaded.fingerprint != manifest.model_fingerprint:
                raise StoreError(
                    f"{self.store.path} was built with another {manifest.config.model}: its weights have changed since."
                )
            self._base = loaded.model.float()
        return self._base
