"""Per-example LoRA gradients of a whole batch, one forward and one backward pass (method, section 5), and Adam's Γ.

`PerExampleGradients` hooks the two small linear layers of every LoRA module and hands out, module by module as the
backward pass reaches it, the gradient of each example's own mean loss. `make_update` turns such a gradient into what is
stored: Adam's update (three forms), the plain gradient, or its sign; `adam_scale` is what Adam divides by.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from gradsift.data.encode import Encoded
from gradsift.model.load import ModelError
from gradsift.training.checkpoint import Checkpoint, canonical

Sink = Callable[[str, torch.Tensor], None]
Update = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Forward:
    """What the pass yields beside gradients.

    losses: (B,) mean cross-entropy over each example's supervised tokens. representations: (B, H) final hidden state of
    each example's last token, after the last norm (RDS).
    """

    losses: torch.Tensor
    representations: torch.Tensor


class PerExampleGradients:
    """Gradients of ℓ(z; θ) with respect to the LoRA parameters for each z of a batch, without a loop over examples.

    model: a PEFT LoRA model; it is put into eval mode, its parameters need no gradients of their own.
    `shapes` maps canonical parameter names to shapes, in the model's order.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self._layers = dict(_lora_layers(model))
        self.shapes = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in self._layers.items()}
        if not self.shapes:
            raise ModelError("The model holds no LoRA layers, so there is nothing to take gradients of.")

    def run(self, batch: Sequence[Encoded], sink: Sink) -> Forward:
        """One packed batch: forward, supervised-only loss, backward.

        sink(name, gradients) is called once per parameter with (B, size) fp32, in the fixed order of the backward pass.

        Raises:
            torch.OutOfMemoryError: the batch does not fit; the caller splits it.
        """
        seen: dict[str, torch.Tensor] = {}
        with self._hooks(sink), torch.enable_grad():
            losses = mean_losses(supervised_losses(self.model, batch, seen), batch)
            losses.sum().backward()
        return Forward(losses.detach(), seen["representations"])

    def token_losses(self, batch: Sequence[Encoded]) -> torch.Tensor:
        """−log p of every supervised token, row after row in one vector (tokens,) fp32, by a forward pass alone."""
        with torch.no_grad():
            return supervised_losses(self.model, batch)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The LoRA parameters themselves by canonical name."""
        return {f"{name}.weight": layer.weight for name, layer in self._layers.items()}

    @contextmanager
    def _hooks(self, sink: Sink) -> Iterator[None]:
        """What takes the gradients out of the pass, hung into it and taken out again."""

        def watch(name: str) -> Callable:
            def forward(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
                entered = inputs[0].detach()  # (B, T, in)

                def backward(gradient: torch.Tensor) -> None:  # (B, T, out)
                    per_example = torch.bmm(gradient.transpose(1, 2).float(), entered.float())  # (B, out, in)
                    sink(f"{name}.weight", per_example.flatten(1))

                if not output.requires_grad:  # below the first layer nothing needs a gradient: the graph begins here
                    output.requires_grad_()
                output.register_hook(backward)

            return forward

        handles = [layer.register_forward_hook(watch(name)) for name, layer in self._layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def supervised_losses(
    model: Any, batch: Sequence[Encoded], seen: dict[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """−log p of every supervised token of a packed batch, row after row in one vector (tokens,) fp32.

    Only the positions that predict one go through the head. Right padding needs no attention mask in a causal model: no
    supervised position sees it, no loss comes from it; without a mask, attention takes its causal fast path.
    seen: gets `representations`, the (B, H) final hidden states of the rows' last tokens, fp32.
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

    inner = getattr(model, "module", model)  # several processes train: DistributedDataParallel wraps it
    handle = inner.get_output_embeddings().register_forward_pre_hook(keep_supervised)
    try:
        logits = model(input_ids=ids, use_cache=False).logits[0]  # (supervised tokens of the batch, vocabulary)
    finally:
        handle.remove()
    return cross_entropy(logits.float(), targets, reduction="none")


def mean_losses(token_losses: torch.Tensor, batch: Sequence[Encoded]) -> torch.Tensor:
    """Each row's mean (B,) of what `supervised_losses` gave: the method's ℓ."""
    return torch.stack([part.mean() for part in token_losses.split([encoded.n_answer for encoded in batch])])


def make_update(kind: str, form: str, checkpoint: Checkpoint, device: torch.device) -> Update:
    """What a training step on one example would do, as a function (name, g (B, n)) -> Γ (B, n), both fp32.

    kind `sgd`: g itself; `sign`: its sign; `adam`: the update by `form` (method, section 3), with t' = t + 1:
    paper m̂/√(v̂+ε); adamw m̂/(√v̂+ε), torch.optim.AdamW's step; released: no bias correction, β 0.9/0.999, ε 1e-8.
    """
    if kind == "sgd":
        return lambda name, g: g
    if kind == "sign":
        return lambda name, g: g.sign()
    beta1, beta2, correct1, correct2, inside, outside = _adam_constants(form, checkpoint)
    first = {n: (m.to(device) * (beta1 / correct1)).flatten() for n, (m, _) in checkpoint.moments.items()}
    second = {n: (v.to(device) * (beta2 / correct2) + inside).flatten() for n, (_, v) in checkpoint.moments.items()}

    def adam(name: str, g: torch.Tensor) -> torch.Tensor:
        root = torch.addcmul(second[name], g, g, value=(1 - beta2) / correct2).sqrt_()
        if outside:
            root.add_(outside)
        return torch.add(first[name], g, alpha=(1 - beta1) / correct1).div_(root)

    return adam


def adam_scale(form: str, checkpoint: Checkpoint, device: torch.device) -> dict[str, torch.Tensor]:
    """1/√v' of Adam's update, name -> (n,) fp32, with v' as it is for a row whose own g² does not count.

    That is what Γ multiplies g by where g² is small beside v; ε stands where `form` has it.
    """
    _, beta2, _, correct2, inside, outside = _adam_constants(form, checkpoint)
    return {
        name: (v.to(device) * (beta2 / correct2) + inside).sqrt_().add_(outside).reciprocal_().flatten()
        for name, (_, v) in checkpoint.moments.items()
    }


def _adam_constants(form: str, checkpoint: Checkpoint) -> tuple[float, float, float, float, float, float]:
    """β1, β2, their bias corrections 1 − β^t', and ε inside and outside of the root."""
    beta1, beta2 = (0.9, 0.999) if form == "released" else checkpoint.betas
    eps = 1e-8 if form == "released" else checkpoint.eps
    step = checkpoint.step + 1
    correct1, correct2 = (1.0, 1.0) if form == "released" else (1 - beta1**step, 1 - beta2**step)
    inside, outside = (0.0, eps) if form == "adamw" else (eps, 0.0)
    return beta1, beta2, correct1, correct2, inside, outside


def _lora_layers(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The A and B layers of every LoRA module by canonical name, in the model's order."""
    for name, module in model.named_modules():
        parent, _, adapter = name.rpartition(".")
        if adapter == "default" and parent.rsplit(".", 1)[-1] in ("lora_A", "lora_B"):
            if not isinstance(module, torch.nn.Linear):
                raise ModelError(f"LoRA on {parent} is not on a linear layer, which is not supported.")
            yield canonical(f"{name}.")[:-1], module


def pad(batch: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(encoded.ids) for encoded in batch])
    ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
    for row, encoded in enumerate(batch):
        ids[row, : len(encoded.ids)] = torch.tensor(encoded.ids)
    return _sent(ids, device), _sent(lengths, device)


def supervised_positions(batch: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Where logits are needed (row, column: one before each supervised token) and which token is due there."""
    rows, columns, targets = [], [], []
    for row, encoded in enumerate(batch):
        at = [position for position, learned in enumerate(encoded.supervised) if learned]
        rows += [row] * len(at)
        columns += [position - 1 for position in at]
        targets += [encoded.ids[position] for position in at]
    return tuple(_sent(torch.tensor(values), device) for values in (rows, columns, targets))


def _sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on the device; CUDA gets them from pinned memory, so that this copy waits for nothing."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
