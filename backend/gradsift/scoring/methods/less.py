"""LESS: the row's stored update against the gradients of the targets (Xia et al. 2024, arXiv 2402.04333, Eq. 2)."""

from typing import TYPE_CHECKING

from gradsift.runtime.errors import StoreError
from gradsift.scoring.method import Look
from gradsift.scoring.vectors import CheckpointVectors

if TYPE_CHECKING:
    from gradsift.config import GradientKind
    from gradsift.datastore.store import Store


class Less(CheckpointVectors):
    """Compares stored gradients; the kind is chosen by `gradient`."""

    name, label = "less", "LESS"
    description = "training on the row would lower the loss on the targets: gradient similarity"
    look = Look("●", "circle", "#2f54d1", "#8da6ff", "blue")
    needs = "gradients"
    side = "gradient"

    def check(self, store: "Store", gradient: "GradientKind") -> None:
        """Refuse an unfinished store, and one without this kind of gradients."""
        super().check(store, gradient)
        if gradient not in store.manifest.config.gradients:
            kept = ", ".join(store.manifest.config.gradients)
            raise StoreError(
                f"{store.path} holds {kept} gradients, not {gradient}: choose one that it holds (--gradient, or for "
                f"evaluate --method less:gradient=...), or build a store with --gradient {gradient}."
            )

    def kind(self, gradient: "GradientKind") -> str:
        """The chosen gradient."""
        return gradient


METHODS = (Less(),)
