"""Per-example LoRA gradients of a whole batch in one forward and one backward pass (method, section 5).

`PerExampleGradients` hooks the two small linear layers of every LoRA module and yields, module by module as the
backward pass reaches it, the gradient of each example's own mean loss. adam.py turns such gradients into the updates to
store.
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
    """The results of a pass apart from gradients.

    losses: (B,) each example's mean cross-entropy over its supervised tokens. representations: (B, H) final hidden
    state of each example's last token, after the last norm (for RDS).
    """

    losses: torch.Tensor
    representations: torch.Tensor


class PerExampleGradients:
    """Gradients of ℓ(z; θ) with respect to the LoRA parameters for each z of a batch, without a loop over examples.

    model: a PEFT LoRA model, which is put into eval mode with its parameters frozen. `shapes` maps canonical parameter
    names to shapes, in the model's order.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self._layers = dict(_lora_layers(model))
        self.shapes = {f"{name}.weight": tuple(layer.weight.shape) for name, layer in self._layers.items()}
        if not self.shapes:
            raise ModelError("The model has no LoRA layers to take gradients of: attach an adapter first.")

    def run(self, batch: Sequence[Encoded], sink: Sink) -> Forward:
        """Run one padded batch forward and backward, with the loss over supervised tokens only.

        sink(name, gradients) is called once per parameter with (B, size) fp32, in the fixed order of the backward pass.

        Raises:
            torch.OutOfMemoryError: the batch does not fit; the caller splits it.
        """
        outputs: dict[str, torch.Tensor] = {}
        with self._hooks(sink), torch.enable_grad():
            losses = mean_losses(supervised_losses(self.model, batch, outputs), batch)
            losses.sum().backward()
        return Forward(losses.detach(), outputs["representations"])

    def token_losses(self, batch: Sequence[Encoded]) -> torch.Tensor:
        """−log p of every supervised token, row after row as one vector (tokens,) in fp32; a forward pass only."""
        with torch.no_grad():
            return supervised_losses(self.model, batch)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """The LoRA parameters by canonical name."""
        return {f"{name}.weight": layer.weight for name, layer in self._layers.items()}

    @contextmanager
    def _hooks(self, sink: Sink) -> Iterator[None]:
        """Attach the hooks that compute the gradients, and remove them afterwards."""

        def watch(name: str) -> Callable:
            def forward(module: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
                activations = inputs[0].detach()  # (B, T, in)

                def backward(gradient: torch.Tensor) -> None:  # (B, T, out)
                    per_example = torch.bmm(gradient.transpose(1, 2).float(), activations.float())  # (B, out, in)
                    sink(f"{name}.weight", per_example.flatten(1))

                if not output.requires_grad:  # nothing before the first layer needs a gradient: the graph begins here
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
                raise ModelError(
                    f"LoRA on {parent}, which is not a linear layer, is not supported: adapt linear layers only."
                )
            yield canonical(f"{name}.")[:-1], module
