"""What the released code does without its CUDA kernel, in as few lines as possible: a peer for the collector.

One example at a time: an ordinary `loss.backward()`, the gradients concatenated, Adam's update on them, and a dense
Rademacher projection whose columns are drawn in blocks of 128 in every call.
"""

from collections.abc import Sequence
from typing import Any

import torch

from gradsift.data.encode import Encoded
from gradsift.training.checkpoint import Checkpoint

BLOCK = 128


def recipe(
    model: Any, weights: dict[str, torch.Tensor], rows: Sequence[Encoded], checkpoint: Checkpoint, dim: int
) -> torch.Tensor:
    """Features (n, d) of `rows`, which are projected in one call. `weights` are the LoRA parameters, by name."""
    m, v = (torch.cat([checkpoint.moments[name][i].flatten() for name in weights]) for i in range(2))
    beta1, beta2, eps = 0.9, 0.999, 1e-8
    updates = []
    for row in rows:
        g = _gradient(model, list(weights.values()), row)
        m1 = beta1 * m.to(g) + (1 - beta1) * g
        v1 = beta2 * v.to(g) + (1 - beta2) * g.square()
        updates.append(m1 / (v1 + eps).sqrt())
    return project(torch.stack(updates), dim)


def _gradient(model: Any, weights: list[torch.Tensor], row: Encoded) -> torch.Tensor:
    ids = torch.tensor([row.ids], device=weights[0].device)
    labels = ids.masked_fill(~torch.tensor([row.supervised], device=ids.device), -100)
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    g = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
    model.zero_grad()
    return g


def project(updates: torch.Tensor, dim: int) -> torch.Tensor:
    """(n, P) -> (n, d) with a dense matrix of ±1/√d that is made block by block."""
    generator = torch.Generator(updates.device)
    out = torch.empty(len(updates), dim, device=updates.device)
    signs = torch.empty(updates.shape[1], BLOCK, device=updates.device)
    for start in range(0, dim, BLOCK):
        signs.bernoulli_(0.5, generator=generator.manual_seed(start)).mul_(2).sub_(1)
        out[:, start : start + BLOCK] = (updates @ signs)[:, : dim - start]
    return out.div_(dim**0.5)
