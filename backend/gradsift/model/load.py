"""Base models: which device and dtype, loading, LoRA, and the fingerprint that tells one model from another."""

import hashlib
import re
import warnings
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
from gradsift.runtime.paths import studio

if TYPE_CHECKING:
    from peft import PeftModel

    from gradsift.config import BuildConfig

BUNDLED = "smollm2"
_LEAVES_BASE = (True, False, "gaussian", "eva", "orthogonal")  # ways to begin LoRA that leave the base weights alone


class ModelError(GradsiftError):
    """A model that cannot be found, loaded, or given LoRA as asked."""


@dataclass(frozen=True)
class Loaded:
    """A base model ready to use; `window` is the most tokens it takes at once."""

    model: torch.nn.Module
    fingerprint: str
    window: int


def default_device() -> torch.device:
    """The best device there is: CUDA, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_dtype(choice: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 on a GPU and fp32 on a CPU; LoRA parameters and gradients are fp32 either way."""
    if choice == "auto":
        choice = "bf16" if device.type == "cuda" else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[choice]


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


def attach_lora(base: torch.nn.Module, config: "BuildConfig") -> "PeftModel":
    """Wrap `base` with fresh LoRA layers, seeded, in fp32 whatever the base's dtype.

    Raises:
        ModelError: no layer has one of the names asked for.
    """
    from peft import LoraConfig

    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=list(config.lora_targets),
        exclude_modules=_beside_text(base),
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(config.seed)
    try:
        return _wrap(base, lora)
    except ValueError as error:
        linear = {n.rsplit(".", 1)[-1] for n, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        raise ModelError(
            f"The model has no layer named {' or '.join(config.lora_targets)}; its linear layers are called "
            f"{', '.join(sorted(linear))}: choose among them with --lora-targets."
        ) from error


def attach_adapter(base: Any, folder: Path) -> "PeftModel":
    """Wrap `base` with the LoRA layers that `folder/adapter_config.json` describes (weights come by `set_adapter`).

    Raises:
        ModelError: the adapter is not plain LoRA, or the model lacks its layers.
    """
    from peft import LoraConfig, PeftConfig

    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig) or config.use_dora:
        raise ModelError(f"The adapter in {folder} is not plain LoRA; gradients are defined here for LoRA only.")
    if config.layer_replication or config.init_lora_weights not in _LEAVES_BASE:
        how = "layer_replication" if config.layer_replication else f"init_lora_weights={config.init_lora_weights!r}"
        raise ModelError(
            f"The adapter in {folder} was made with {how}, which changes the base model's own weights: convert it to "
            "plain LoRA first, as PEFT's documentation shows."
        )
    config.base_model_name_or_path = base.name_or_path
    try:
        return _wrap(base, config)
    except ValueError as error:
        raise ModelError(f"The adapter in {folder} does not fit the model: {error}") from error


def set_adapter(model: "PeftModel", weights: dict[str, torch.Tensor]) -> None:
    """Put a checkpoint's LoRA weights into the wrapped model.

    Raises:
        ModelError: names or shapes differ.
    """
    from peft import set_peft_model_state_dict

    try:
        result: Any = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        raise ModelError(f"The checkpoint's adapter does not fit the model: {error}") from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or missing:
        raise ModelError(f"The checkpoint's adapter does not fit the model: {(missing or result.unexpected_keys)[0]}.")


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


def _wrap(base: Any, config: Any) -> "PeftModel":
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # between peft and transformers
        return get_peft_model(base, config)


def _beside_text(base: Any) -> str | None:
    """Matches the layers of a composite model's other towers (vision, audio), which no text reaches; None without."""
    from transformers import PreTrainedModel

    known = {base.config.model_type, base.config.get_text_config().model_type}
    parts = (name for name, part in base.named_modules() if isinstance(part, PreTrainedModel) and name
             and part.config.model_type not in known)  # fmt: skip
    towers = "|".join(map(re.escape, parts))
    return rf"(?:{towers})\..*" if towers else None


def _fingerprint(model: torch.nn.Module) -> str:
    """Hash of every parameter's name, shape and 64 evenly spaced values: cheap, and no training leaves it unchanged."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.state_dict().items()):
        flat = parameter.detach().reshape(-1)
        at = torch.arange(min(64, len(flat))) * len(flat) // min(64, len(flat))
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[at].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _unknown(model: str, error: Exception) -> ModelError:
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ModelError(
        f"The model {model!r} cannot be loaded: it is not {BUNDLED!r}, not a folder with a causal language model, and "
        f"not a Hugging Face id that can be reached from here ({first})."
    )
