"""DSIR: a draw by importance weights of hashed words and pairs of words (`scoring/dsir.py` has the formula)."""

from typing import TYPE_CHECKING

from gradsift.scoring.method import Look, Method

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder


class Dsir(Method):
    """Takes a subtask's targets together: there is one score per group."""

    name, label = "dsir", "DSIR"
    description = "a seeded draw: rows with words and pairs of words like the targets' weigh more"
    look = Look("✚", "cross", "#7e22ce", "#c79bff", "violet")
    needs = "texts"
    sees_targets = compares_words = True

    def compute(self, context: "Context") -> None:
        """Count n-grams: the weights for any grouping of the targets follow from the counts."""
        import torch

        from gradsift.datastore.shards import write_tensors
        from gradsift.scoring.bm25_index import documents
        from gradsift.scoring.dsir import count_ngrams

        scoring, progress = context.scoring, context.progress
        progress.stage("score-dsir", "Counting words and pairs of words for DSIR", len(scoring.rows), "rows")
        ngrams = count_ngrams(documents(context.store), scoring.texts, progress.advance)
        (path,) = self.files(scoring, context.gradient)
        tensors = {name: torch.from_numpy(array) for name, array in vars(ngrams).items()}
        write_tensors(path, tensors, {"kind": self.name})

    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """Each group's log weights plus noise, so that the highest are a random draw by weight."""
        from gradsift.scoring.dsir import Ngrams, gumbel_noise
        from gradsift.scoring.evidence import Evidence

        ((arrays, weight),) = self.kept(scoring, gradient)
        ngrams = Ngrams(**{**arrays, "targets": arrays["targets"][scoring.kept_columns]})
        drawn = ngrams.log_weights(groups, rows) + gumbel_noise(len(scoring.rows), seed)[rows, None]
        return [Evidence(drawn[:, groups], None, None, weight)]


METHODS = (Dsir(),)
