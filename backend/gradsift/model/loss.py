"""The loss: −log p of every supervised token in a padded batch, and the mean of each row (the method's ℓ)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from gradsift.data.encode import Encoded


def supervised_losses(
    model: Any, batch: Sequence[Encoded], seen: dict[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """−log p of every supervised token in a batch, row after row, as one vector (tokens,) in fp32.

    Only positions that predict a supervised token go through the head. Right padding needs no attention mask in a
    causal model: no supervised position attends to it, and without a mask attention takes its fast causal path. seen:
    receives `representations`, the (B, H) final hidden states of the rows' last tokens, in fp32.
    """
    device = next(model.parameters()).device
    ids, lengths = pad(batch, device)
    rows, columns, targets = supervised_positions(batch, device)

    def keep_supervised(module: Any, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        hidden = inputs[0]  # (B, T, H)
        if seen is not None:
            ends = torch.arange(len(hidden), device=hidden.device), lengths - 1
            seen["representations"] = hidden.detach()[ends].float()
        return (hidden[rows, columns].unsqueeze(0),)

    inner = getattr(model, "module", model)  # with several processes, DistributedDataParallel wraps it
    handle = inner.get_output_embeddings().register_forward_pre_hook(keep_supervised)
    try:
        logits = model(input_ids=ids, use_cache=False).logits[0]  # (supervised tokens of the batch, vocabulary)
    finally:
        handle.remove()
    return cross_entropy(logits.float(), targets, reduction="none")


def mean_losses(token_losses: torch.Tensor, batch: Sequence[Encoded]) -> torch.Tensor:
    """(B,) each row's mean of its `supervised_losses`: the method's ℓ."""
    return torch.stack([part.mean() for part in token_losses.split([encoded.n_answer for encoded in batch])])


def pad(batch: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, longest) padded with 0 on the right, and lengths (B,), on the device."""
    lengths = torch.tensor([len(encoded.ids) for encoded in batch])
    ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
    for row, encoded in enumerate(batch):
        ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
    return _sent(ids, device), _sent(lengths, device)


def supervised_positions(batch: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, ...]:
    """rows, columns, targets: where logits are needed (before each supervised token), and the token to predict."""
    rows, columns, targets = [], [], []
    for row, encoded in enumerate(batch):
        at = [position for position, learned in enumerate(encoded.supervised) if learned]
        rows += [row] * len(at)
        columns += [position - 1 for position in at]
        targets += [encoded.ids[position] for position in at]
    return tuple(_sent(torch.tensor(values), device) for values in (rows, columns, targets))


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on the device; for CUDA from pinned memory, so that the copy does not block."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
