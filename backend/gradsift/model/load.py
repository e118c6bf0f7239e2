"""Base models: which device and dtype, loading, LoRA, and the fingerprint that tells one model from another."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from huggingface_hub import constants
from safetensors import SafetensorError

from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_parts
from gradsift.runtime.paths import studio

if TYPE_CHECKING:
    pass

BUNDLED = "smollm2"


class ModelError(GradsiftError):
    """A model that cannot be found, loaded, or given LoRA as asked."""


@dataclass(frozen=True)
class Loaded:
    """A base model ready to use; `window` is the most tokens it takes at once."""

    model: torch.nn.Module
    fingerprint: str
    window: int


def demo_template() -> Path:
    """ChatML without the default system message that SmolLM2's own template puts before every row."""
    return studio() / "assets" / "chatml.jinja"


def locate(model: str) -> str:
    """What transformers should load for `model`: the bundled model's folder, a local folder, or a hub id."""
    if model == BUNDLED:
        from gradsift.model.bundled import ensure_smollm2

        return str(ensure_smollm2())
    return model


def load_tokenizer(model: str) -> Any:
    """The model's fast tokenizer.

    Raises:
        ModelError: nothing by that name can be loaded.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, model)


def model_window(model: str) -> int:
    """The most tokens the model takes at once, read from its config without loading the weights."""
    from transformers import AutoConfig

    config = _load(AutoConfig, model)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**31 - 1)


def load_model(model: str, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Load base weights in `dtype` onto `device`, dropout off, no parameter trainable.

    Raises:
        ModelError: nothing by that name can be loaded, or it is no causal language model.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # the build reports its own progress
    base = _load(AutoModelForCausalLM, model, dtype=dtype)
    fingerprint = _fingerprint(base)
    base.generation_config = GenerationConfig()  # greedy is greedy: without the penalties that its chat may prefer
    base = base.to(device).eval().requires_grad_(False)
    return Loaded(base, fingerprint, model_window(model))


def _load(kind: Any, model: str, **options: Any) -> Any:
    """`kind.from_pretrained` of a model, without its code and without waiting for a hub that cannot be reached."""
    place = locate(model)
    local = Path(place).is_dir() or not _hub_answers()
    try:
        return kind.from_pretrained(place, local_files_only=local, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _unknown(model, error) from error


@cache
def _hub_answers() -> bool:
    """Whether the model hub can be reached, asked once: its own client would ask for a minute, file by file."""
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5).close()
    except HTTPError:  # an answer, if not a welcome
        return True
    except OSError:
        return False
    return True


def _fingerprint(model: torch.nn.Module) -> str:
    """Hash of every parameter's name, shape and 64 evenly spaced values: cheap, and no training leaves it unchanged."""
    parts = []
    for name, parameter in sorted(model.state_dict().items()):
        flat = parameter.detach().reshape(-1)
        at = torch.arange(min(64, len(flat))) * len(flat) // min(64, len(flat))
        parts += [f"{name}{tuple(parameter.shape)}".encode(), flat[at].float().cpu().numpy().tobytes()]
    return hash_parts(parts)[:16]


def _unknown(model: str, error: Exception) -> ModelError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        f"The model {model!r} cannot be loaded: it is not {BUNDLED!r}, not a folder with a causal language model, and "
        f"not a Hugging Face id that can be reached from here ({first})."
    )
