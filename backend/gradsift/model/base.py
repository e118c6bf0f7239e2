"""A base model by name: its tokenizer is read on first use, its weights while a caller holds the device."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch

from gradsift.data.encode import Encoder
from gradsift.model import load
from gradsift.runtime.device import try_order
from gradsift.runtime.progress import Progress


class BaseModel:
    """A base model with its encoder, for one device.

    options: keywords for the template. dtype: the number type the weights are read in. exact: compute in fp32 whatever
    `dtype` is; the weights keep the values they were read with. Encoder and window are read on first use, without the
    weights.
    """

    def __init__(
        self,
        name: str,
        template: str,
        options: Mapping[str, Any],
        dtype: torch.dtype,
        device: torch.device,
        *,
        exact: bool = False,
    ) -> None:
        self.name, self.template, self.options = name, template, options
        self.dtype, self.device, self.exact = dtype, device, exact
        self._loaded: load.Loaded | None = None
        self._on_device = False

    @cached_property
    def encoder(self) -> Encoder:
        """Renders and tokenizes with the model's tokenizer and the template.

        Raises:
            ModelError: the tokenizer cannot be loaded. TemplateError: the template does not fit it.
        """
        return Encoder(load.load_tokenizer(self.name), self.template, self.options)

    @cached_property
    def window(self) -> int:
        """The most tokens that the model takes at once.

        Raises:
            ModelError: the model's configuration cannot be loaded.
        """
        return load.model_window(self.name)

    @property
    def fingerprint(self) -> str:
        """Identifies these weights. If they are not loaded, they are read once into main memory."""
        loaded = self._loaded or load.load_model(self.name, self.dtype, torch.device("cpu"))
        return loaded.fingerprint

    def load(self, progress: Progress) -> torch.nn.Module:
        """The weights on the device, read at the first call. The caller must hold the device (`device.exclusive`).

        Raises:
            ModelError: they cannot be loaded.
        """
        if self._loaded is None:
            progress.say(f"Loading {self.name} on {self.device}")
            self._loaded = load.load_model(self.name, self.dtype, self.device)
            if self.exact:
                self._loaded.model.float()
        if not self._on_device:
            try_order(self._loaded.model.to(self.device), progress)
            self._on_device = True
        return self.module

    @property
    def module(self) -> torch.nn.Module:
        """The weights that `load` has put on the device."""
        if self._loaded is None or not self._on_device:
            raise RuntimeError(f"{self.name} is not loaded onto {self.device}: call load first")
        return self._loaded.model

    def park(self) -> None:
        """Move the weights to main memory, where they wait for the next `load`."""
        if self._loaded is not None and self.device.type != "cpu":
            self._loaded.model.to("cpu")
            torch.cuda.empty_cache()
            self._on_device = False

    def release(self) -> None:
        """Drop the weights; their memory is free once nothing else refers to them."""
        self._loaded, self._on_device = None, False
