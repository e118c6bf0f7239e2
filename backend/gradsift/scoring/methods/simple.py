"""Naive baselines that look at no target: the longest answers, and the answers that the model finds hardest.

People try these first, and both have known weaknesses: long answers are often long-winded, and answers with a high
loss are as often wrong or in another alphabet as they are instructive.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

from gradsift.scoring.method import Look, Method

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.datastore.store import Store
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder


class RowScores(Method):
    """A score of the row alone."""

    @abstractmethod
    def scores(self, store: "Store") -> "list[np.ndarray]":
        """Scores of the scored rows, (n,) float32, one array for each of `files`."""

    def compute(self, context: "Context") -> None:
        """Keep the scores."""
        import torch

        from gradsift.datastore.shards import write_tensors

        files = self.files(context.scoring, context.gradient)
        for path, scores in zip(files, self.scores(context.store), strict=True):
            write_tensors(path, {"scores": torch.from_numpy(scores)}, {"kind": path.stem})

    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """The same scores for every target."""
        kept = self.kept(scoring, gradient)
        return [scoring.for_every_target(arrays["scores"][rows], weight) for arrays, weight in kept]


class Length(RowScores):
    """Tokens of the answer."""

    name, label = "length", "Length"
    description = "the longest answers, whatever the targets"
    look = Look("▼", "triangle-down", "#6b7c05", "#c3d354", "green")
    needs = "pool"

    def scores(self, store: "Store") -> "list[np.ndarray]":
        """Tokens of every scored row's answer."""
        return [store.pool()["n_answer_tokens"].loc[store.scored_rows].to_numpy(dtype="float32")]


class Loss(RowScores):
    """Mean cross-entropy of the answer, Σ_i w_i ℓ(z; θ_i) with the weights of Eq. 2."""

    name, label = "loss", "Loss"
    description = "the answers that the model finds hardest, whatever the targets"
    look = Look("✦", "star", "#b0236a", "#f08cbc", "red")
    needs = "metrics"
    by_checkpoint = True

    def scores(self, store: "Store") -> "list[np.ndarray]":
        """The loss at each checkpoint, as the build stored it."""
        metrics = store.metrics()
        return [
            metrics.loc[metrics["epoch"] == epoch, "loss"].to_numpy(dtype="float32")[store.scored]
            for epoch in store.epochs
        ]


METHODS = (Length(), Loss())
