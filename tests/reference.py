"""The method again, in float64 and plain loops: autograd on one row at a time, Adam's formula, Eq. 2 written out.

Tests compare the engine with this module, which uses the engine's data types but none of its computations.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.nn.functional import log_softmax

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def small_config(model: Path | str, **changes: Any) -> BuildConfig:
    """Parameters for a build of seconds on the toy model: 2 epochs, rank 4, d = 64."""
    small = {
        "max_length": 128,
        "warmup_fraction": 1.0,
        "epochs": 2,
        "batch_size": 2,
        "lr": 1e-3,
        "lora_rank": 4,
        "dim": 64,
        "token_budget": 128,
        "shard_rows": 5,
    }
    return BuildConfig(model=str(model), **{**small, **changes})


def random_rows(vocabulary: int, lengths: Sequence[int], seed: int = 0) -> list[Encoded]:
    """Rows of random tokens; each position after the first is supervised with probability one half, the last always."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        supervised = (rng.random(length) < 0.5).tolist()
        supervised[0], supervised[-1] = False, True
        n_answer = sum(supervised)
        rows.append(Encoded(rng.integers(0, vocabulary, length).tolist(), supervised, length - n_answer, n_answer, 0))
    return rows


def with_lora(
    base: Any, targets: Sequence[str] = ATTENTION, seed: int = 0, scale: float = 0.1, **changes: Any
) -> PeftModel:
    """`base` with LoRA whose A and B are both random: with B = 0 as PEFT starts it, A's gradient would vanish."""
    config = LoraConfig(r=4, lora_alpha=16, target_modules=list(targets), task_type="CAUSAL_LM", **changes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # between peft and transformers
        model = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model.eval()


def in_float64(model: Any) -> Any:
    """The model in float64 throughout; Llama's norm would otherwise go through float32."""
    for module in model.double().modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = _norm.__get__(module)
    return model


def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    return self.weight * x / (x.square().mean(-1, keepdim=True) + self.variance_epsilon).sqrt()


def loss_of_one(model: Any, row: Encoded) -> torch.Tensor:
    """ℓ(z; θ): the mean over supervised tokens of −log p(token | what precedes it), with an ordinary forward pass."""
    log_p = log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0], dim=-1)
    losses = [-log_p[at - 1, row.ids[at]] for at in range(1, len(row.ids)) if row.supervised[at]]
    return sum(losses) / len(losses)


def gradient_of_one(model: Any, row: Encoded) -> dict[str, torch.Tensor]:
    """∇ℓ(z; θ) by autograd, name -> flat vector, named as in the adapter file."""
    lora = {name: p.requires_grad_(True) for name, p in model.named_parameters() if "lora_" in name}
    result = torch.autograd.grad(loss_of_one(model, row), list(lora.values()))
    return {name.replace(".default.", "."): g.flatten() for name, g in zip(lora, result, strict=True)}


def representation_of_one(model: Any, row: Encoded) -> torch.Tensor:
    """The last token's hidden state after the final norm."""
    decoder = model.get_base_model().get_decoder()
    with torch.no_grad():
        return decoder(input_ids=torch.tensor([row.ids])).last_hidden_state[0, -1]


def adam_of_one(
    g: float, m: float, v: float, t: int, form: str, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> float:
    """Γ of one coordinate, from the table in the method's section 3; t is the number of steps taken before this one."""
    if form == "released":
        beta1, beta2, eps = 0.9, 0.999, 1e-8
        return (beta1 * m + (1 - beta1) * g) / (beta2 * v + (1 - beta2) * g * g + eps) ** 0.5
    beta1, beta2 = betas
    m_hat = (beta1 * m + (1 - beta1) * g) / (1 - beta1 ** (t + 1))
    v_hat = (beta2 * v + (1 - beta2) * g * g) / (1 - beta2 ** (t + 1))
    return m_hat / (v_hat + eps) ** 0.5 if form == "paper" else m_hat / (v_hat**0.5 + eps)


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    """‖result − expected‖ / ‖expected‖."""
    return float((result.double() - expected.double()).norm() / expected.double().norm())


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """⟨x, y⟩ / (‖x‖ ‖y‖) with a plain formula in float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))
