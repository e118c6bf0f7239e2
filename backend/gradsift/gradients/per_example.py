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

from gradsift.data.encode import Encoded
from gradsift.model.load import ModelError
from gradsift.model.loss import mean_losses, supervised_losses
from gradsift.training.checkpoint import canonical

Sink = Callable[[str, torch.Tensor], None]


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


def _lora_layers(model: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The A and B layers of every LoRA module by canonical name, in the model's order."""
    for name, module in model.named_modules():
        parent, _, adapter = name.rpartition(".")
        if adapter == "default" and parent.rsplit(".", 1)[-1] in ("lora_A", "lora_B"):
            if not isinstance(module, torch.nn.Linear):
                raise ModelError(f"LoRA on {parent} is not on a linear layer, which is not supported.")
            yield canonical(f"{name}.")[:-1], module
