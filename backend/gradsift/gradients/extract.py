"""One pass over rows at one checkpoint: projected features, norms, losses and RDS representations (method, section 2).

The same pass serves pool rows (Adam's update and other kinds) and target rows (the plain gradient).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch.linalg import vector_norm

from gradsift.data.encode import Encoded
from gradsift.gradients.adam import Update
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model.batches import joined, run_batches


class LinearMap(Protocol):
    """A map from named parameters to d-vectors: a `Projector`, or anything else that is a sum over parameters."""

    @property
    def dim(self) -> int: ...

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        """Add the map of each row of `gradients` (B, n), all of parameter `name`, to `out` (B, d)."""


@dataclass
class Features:
    """The results of one pass for n rows, on the CPU.

    projected: kind -> (n, d) fp32, Π of the update. grad_norm, update_norm: (n,) fp32, ‖g‖ and ‖Γ‖ before projection,
    Γ being Adam's update if it is among the kinds. loss: (n,) mean cross-entropy. representation: (n, H) fp32.
    splits: how often memory ran out and a batch was halved.
    """

    projected: dict[str, torch.Tensor]
    grad_norm: torch.Tensor
    update_norm: torch.Tensor
    loss: torch.Tensor
    representation: torch.Tensor
    splits: int = 0


class FeatureExtractor:
    """Extracts features at one checkpoint.

    gradients: the hooked model, holding the checkpoint's weights. projector: of the checkpoint. updates: kind ->
    function (name, g) -> what is projected under that kind. token_budget: padded tokens of a batch; it shrinks
    when a batch does not fit into memory.
    """

    def __init__(
        self, gradients: PerExampleGradients, projector: LinearMap, updates: dict[str, Update], token_budget: int
    ) -> None:
        self.gradients, self.projector, self.updates, self.token_budget = gradients, projector, updates, token_budget
        self.device = next(gradients.model.parameters()).device

    def extract(self, rows: Sequence[Encoded], done: Callable[[int], None] = lambda rows: None) -> Features:
        """Features of `rows` in their order. `done(k)` is called after every batch of k rows."""
        pieces, splits, self.token_budget = run_batches(rows, self.token_budget, self._batch, done)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # every batch has arrived on the host
        return _in_row_order(pieces, splits)

    def _batch(self, rows: Sequence[Encoded]) -> Features:
        size = len(rows)
        projected = {kind: torch.zeros(size, self.projector.dim, device=self.device) for kind in self.updates}
        main = "adam" if "adam" in self.updates else next(iter(self.updates))
        grad_norms, update_norms = [], []  # (B,) per parameter

        def sink(name: str, g: torch.Tensor) -> None:
            grad_norms.append(vector_norm(g, dim=1))
            for kind, update in self.updates.items():
                stepped = update(name, g)
                if kind == main:
                    update_norms.append(vector_norm(stepped, dim=1))
                self.projector.add(name, stepped, projected[kind])

        forward = self.gradients.run(rows, sink)
        return Features(
            projected={kind: _leaving(values) for kind, values in projected.items()},
            grad_norm=_leaving(vector_norm(torch.stack(grad_norms), dim=0)),
            update_norm=_leaving(vector_norm(torch.stack(update_norms), dim=0)),
            loss=_leaving(forward.losses),
            representation=_leaving(forward.representations),
        )


def _leaving(values: torch.Tensor) -> torch.Tensor:
    """A copy on the host that may not have arrived yet: from CUDA it enters pinned memory while the next batch runs."""
    return values.to("cpu", non_blocking=True)


def _in_row_order(pieces: list[tuple[list[int], Features]], splits: int) -> Features:
    batches, features = [batch for batch, _ in pieces], [piece for _, piece in pieces]
    return Features(
        projected={kind: joined(batches, [f.projected[kind] for f in features]) for kind in features[0].projected},
        grad_norm=joined(batches, [f.grad_norm for f in features]),
        update_norm=joined(batches, [f.update_norm for f in features]),
        loss=joined(batches, [f.loss for f in features]),
        representation=joined(batches, [f.representation for f in features]),
        splits=splits,
    )
