"""Random: the floor that every other method has to beat."""

from pathlib import Path
from typing import TYPE_CHECKING

from gradsift.scoring.method import Look, Method

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder


class Random(Method):
    """One uniform score per row, a function of the number of rows and the seed; nothing is kept."""

    name, label = "random", "Random"
    description = "a seeded draw, the floor every method has to beat"
    look = Look("○", "circle-open", "#5b6472", "#a3abb8", "gray")
    needs = "nothing"

    def files(self, scoring: "ScoringFolder", gradient: "GradientKind") -> list[Path]:
        """No files."""
        return []

    def computed(self, scoring: "ScoringFolder", gradient: "GradientKind") -> bool:
        """Always true: there is nothing to compute."""
        return True

    def compute(self, context: "Context") -> None:
        """Do nothing."""

    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """The draw with this seed."""
        import numpy as np

        scores = np.random.default_rng([seed, 4]).random(len(scoring.rows), dtype=np.float32)
        return [scoring.for_every_target(scores[rows], 1.0)]


METHODS = (Random(),)
