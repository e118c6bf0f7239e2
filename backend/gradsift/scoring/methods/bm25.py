"""BM25: rare words that row and target share (`scoring/bm25.py` has the formula, `scoring/bm25_index.py` the index)."""

from typing import TYPE_CHECKING

from gradsift.scoring.method import Look, Method

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder


class Bm25(Method):
    """Each target is a query, each row a document."""

    name, label = "bm25", "BM25"
    description = "the row shares rare words with the targets"
    look = Look("■", "square", "#b45309", "#f0b04a", "orange")
    needs = "texts"
    sees_targets = compares_words = resamples = True

    def compute(self, context: "Context") -> None:
        """Score every row for every target, and keep the weights of the targets' words for display."""
        import torch

        from gradsift.datastore.shards import write_tensors
        from gradsift.runtime import atomic
        from gradsift.scoring.bm25 import bm25_scores
        from gradsift.scoring.bm25_index import ensure_words
        from gradsift.scoring.evidence import WORDS
        from gradsift.text.words import distinct_words

        scoring, progress, queries = context.scoring, context.progress, context.scoring.texts
        index = ensure_words(context.store, progress)
        progress.stage("score-bm25", "Scoring words by BM25", index.documents, "rows")
        products = torch.from_numpy(bm25_scores(index, queries, progress.advance))
        atomic.write_json(scoring.path / WORDS, index.weights(distinct_words(queries)))
        (path,) = self.files(scoring, context.gradient)
        write_tensors(path, {"products": products}, {"kind": self.name})

    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """Scores for each single target."""
        from gradsift.scoring.evidence import Evidence

        ((arrays, weight),) = self.kept(scoring, gradient)
        return [Evidence(arrays["products"][rows][:, scoring.kept_columns], None, None, weight)]


METHODS = (Bm25(),)
