"""Methods that compare vectors of rows with vectors of targets: the part they share."""

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from gradsift.scoring.method import Method

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder


class VectorMethod(Method):
    """Its scores are cosines or dot products; its files hold products, norms and the targets' Gram matrix."""

    sees_targets = compares_vectors = resamples = True

    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """Products, Gram matrix and norms at each checkpoint, or of the base model."""
        from gradsift.scoring.evidence import Evidence

        keep = scoring.kept_columns
        return [
            Evidence(part["products"][rows][:, keep], part["gram"][keep][:, keep], part["norms"][rows], weight)
            for part, weight in self.kept(scoring, gradient)
        ]


class CheckpointVectors(VectorMethod):
    """Compares a kind of the store's features with the targets' at every checkpoint (Eq. 2).

    side: which of the targets' vectors: "gradient" or "representation".
    """

    by_checkpoint = True
    side: ClassVar[str]

    @abstractmethod
    def kind(self, gradient: "GradientKind") -> str:
        """The kind of stored features that is compared, which also names the files."""

    def files(self, scoring: "ScoringFolder", gradient: "GradientKind") -> list[Path]:
        """One file per checkpoint, named after the kind of features."""
        return [scoring.path / f"{self.kind(gradient)}-{epoch}.safetensors" for epoch in scoring.epochs]

    def compute(self, context: "Context") -> None:
        """Compute missing target features, then pass once over the stored features of each checkpoint."""
        from gradsift.datastore.shards import read_tensors, write_tensors
        from gradsift.scoring.products import stored_products
        from gradsift.scoring.target_features import ensure_target_features, missing_targets, target_file

        store, scoring, progress = context.store, context.scoring, context.progress
        if missing_targets(scoring):
            ensure_target_features(context.model, scoring, context.encoded, progress)
        kind, count = self.kind(context.gradient), len(store.epochs)
        for epoch, path in enumerate(self.files(scoring, context.gradient)):
            if path.is_file():
                continue
            label = f"Scoring the store by {kind}, checkpoint {epoch + 1} of {count}"
            progress.stage(f"score-{kind}-{epoch + 1}", label, store.manifest.usable, "rows")
            vectors = read_tensors(target_file(scoring, epoch))[0][self.side]
            write_tensors(path, stored_products(store, kind, epoch, vectors, progress), {"kind": kind})
