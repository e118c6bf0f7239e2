"""Base models and tokenizers: where they come from, loading, and the fingerprint that identifies a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_parts
from gradsift.runtime.hub import hub_answers
from gradsift.runtime.paths import studio

BUNDLED = "smollm2"


class ModelError(GradsiftError):
    """A model cannot be found or loaded, or LoRA cannot be attached to it as configured."""


@dataclass(frozen=True)
class Loaded:
    """A base model ready to use; `window` is its context length in tokens."""

    model: torch.nn.Module
    fingerprint: str
    window: int


def demo_template() -> Path:
    """Path of a ChatML template without the default system message that SmolLM2's own adds to every row."""
    return studio() / "assets" / "chatml.jinja"


def locate(model: str) -> str:
    """What transformers loads for `model`: the bundled model's folder, a local folder or a hub id."""
    if model == BUNDLED:
        from gradsift.model.bundled import ensure_smollm2

        return str(ensure_smollm2())
    return model


def load_tokenizer(model: str) -> Any:
    """The model's fast tokenizer.

    Raises:
        ModelError: no tokenizer of that name can be loaded.
    """
    from transformers import AutoTokenizer

    return _load(AutoTokenizer, model)


def model_window(model: str) -> int:
    """The model's context length in tokens, read from its config without loading the weights."""
    from transformers import AutoConfig

    config = _load(AutoConfig, model)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**31 - 1)


def load_model(model: str, dtype: torch.dtype, device: torch.device) -> Loaded:
    """Load base weights in `dtype` onto `device`, with dropout off and all parameters frozen.

    Raises:
        ModelError: no model of that name can be loaded, or it is not a causal language model.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # the build reports its own progress
    base = _load(AutoModelForCausalLM, model, dtype=dtype)
    fingerprint = _fingerprint(base)
    base.generation_config = GenerationConfig()  # plain greedy decoding, without the penalties of its chat settings
    base = base.to(device).eval().requires_grad_(False)
    return Loaded(base, fingerprint, model_window(model))


def _load(auto_class: Any, model: str, **options: Any) -> Any:
    """`from_pretrained` of a model, running none of its code and not waiting for an unreachable hub."""
    place = locate(model)
    local = Path(place).is_dir() or not hub_answers()
    try:
        return auto_class.from_pretrained(place, local_files_only=local, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise _unknown(model, error) from error


def _fingerprint(model: torch.nn.Module) -> str:
    """Hash of every parameter's name, shape and 64 evenly spaced values: cheap, and any training changes it."""
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
        f"not a Hugging Face id that can be reached from here ({first}). Check the name and the connection."
    )
