"""RDS: the row's last hidden state at every checkpoint against the targets' (the baseline of Xia et al. 2024)."""

from typing import TYPE_CHECKING

from gradsift.scoring.method import Look
from gradsift.scoring.vectors import CheckpointVectors

if TYPE_CHECKING:
    from gradsift.config import GradientKind


class Rds(CheckpointVectors):
    """Compares stored representations."""

    name, label = "rds", "RDS"
    description = "the row's last hidden state points where the targets' does"
    look = Look("▲", "triangle-up", "#0f766e", "#4fd1c5", "green")
    needs = "representations"
    side = "representation"

    def kind(self, gradient: "GradientKind") -> str:
        """Representations, whatever the gradient."""
        return "rds"


METHODS = (Rds(),)
