"""LoRA on a base model: fresh layers, a checkpoint's adapter and its weights."""

import json
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradsift.model.load import ModelError

if TYPE_CHECKING:
    from peft import PeftModel

    from gradsift.config import BuildConfig


_LEAVES_BASE = (True, False, "gaussian", "eva", "orthogonal")  # initializations that do not change the base weights
# Settings of PEFT with which an adapter computes or trains something else than plain LoRA on linear layers does.
_MORE_THAN_LORA = {
    "use_dora": "DoRA",
    "alora_invocation_tokens": "aLoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "megatron_config": "LoRA on layers of Megatron",
    "modules_to_save": "LoRA with whole layers",
    "lora_bias": "LoRA with biases",
    "trainable_token_indices": "LoRA with token embeddings",
    "target_parameters": "LoRA on bare parameters",
}


def attach_lora(base: torch.nn.Module, config: "BuildConfig") -> "PeftModel":
    """Wrap `base` with fresh, seeded LoRA layers in fp32, whatever the base's dtype.

    Raises:
        ModelError: no layer has one of the configured names.
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
    """Wrap `base` with the LoRA layers that `folder/adapter_config.json` describes; `set_adapter` loads the weights.

    Raises:
        ModelError: the adapter is not plain LoRA, or the model lacks its layers.
    """
    from peft import PeftConfig

    check_plain_lora(folder)
    config = PeftConfig.from_pretrained(str(folder))
    config.base_model_name_or_path = base.name_or_path
    try:
        return _wrap(base, config)
    except ValueError as error:
        raise ModelError(f"The adapter in {folder} does not fit the model: {error}") from error


def check_plain_lora(folder: Path) -> None:
    """Check by `folder/adapter_config.json` alone that the adapter is one whose gradients can be taken.

    Raises:
        ModelError: the file cannot be read, or the adapter is of another type, a variant, trains other parameters as
            well or changed the base weights.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"The adapter_config.json in {folder} cannot be read ({error}); save it again.") from error
    if what := _beyond_lora(config):
        raise ModelError(
            f"The adapter in {folder} is not plain LoRA but {what}, and gradients are taken of plain LoRA on linear "
            "layers only: give another one."
        )
    init = config.get("init_lora_weights", True)
    if config.get("layer_replication") or init not in _LEAVES_BASE:
        how = "layer_replication" if config.get("layer_replication") else f"init_lora_weights={init!r}"
        raise ModelError(
            f"The adapter in {folder} was made with {how}, which changes the base model's own weights: convert it to "
            "plain LoRA first, as described in PEFT's documentation."
        )


def _beyond_lora(config: Any) -> str | None:
    """What an adapter is if it is not plain LoRA, with the setting that says so."""
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        return f"{kind} (peft_type)" if kind else "of an unknown kind (its adapter_config.json has no peft_type)"
    if config.get("bias") not in (None, "none"):
        return f"LoRA with biases (bias={config['bias']!r})"
    return next((f"{what} ({key})" for key, what in _MORE_THAN_LORA.items() if config.get(key)), None)


def set_adapter(model: "PeftModel", weights: dict[str, torch.Tensor]) -> None:
    """Load a checkpoint's LoRA weights into the wrapped model.

    Raises:
        ModelError: names or shapes do not match.
    """
    from peft import set_peft_model_state_dict

    try:
        result: Any = set_peft_model_state_dict(model, weights)
    except RuntimeError as error:
        raise ModelError(f"The checkpoint's adapter does not fit the model: {error}") from error
    missing = [name for name in result.missing_keys if "lora_" in name]
    if result.unexpected_keys or missing:
        raise ModelError(f"The checkpoint's adapter does not fit the model: {(missing or result.unexpected_keys)[0]}.")


def _wrap(base: Any, config: Any) -> "PeftModel":
    from peft import get_peft_model

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # between peft and transformers
        return get_peft_model(base, config)


def _beside_text(base: Any) -> str | None:
    """A pattern for the layers of a model's other towers (vision, audio), which text never reaches; else None."""
    from transformers import PreTrainedModel

    text_types = {base.config.model_type, base.config.get_text_config().model_type}
    parts = (name for name, part in base.named_modules() if isinstance(part, PreTrainedModel) and name
             and part.config.model_type not in text_types)  # fmt: skip
    towers = "|".join(map(re.escape, parts))
    return rf"(?:{towers})\..*" if towers else None
