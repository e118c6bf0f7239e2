"""What a selection method is. To add one, put a file with a subclass into `methods/`; nothing else has to change.

The files of all methods are imported whenever a command lists its options, so torch, numpy and whatever imports them
are imported inside the functions that compute.
"""

import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import numpy as np

    from gradsift.config import GradientKind
    from gradsift.datastore.store import Store
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import Evidence, ScoringFolder

Needs = Literal["gradients", "representations", "base model", "texts", "pool", "metrics", "nothing"]


@dataclass(frozen=True, slots=True)
class Look:
    """How a method looks on a page and in a report: a mark for text, Plotly's name for the same mark, and its color on
    light and on dark backgrounds. ink: the nearest color of Streamlit's markdown.

    The hues stay distinct under the common color blindnesses (blue, amber, teal and grey differ in lightness as well),
    and the mark identifies the method without color.
    """

    mark: str
    symbol: str
    light: str
    dark: str
    ink: str


_SPARE_LOOKS = (
    Look("✖", "x", "#8a4b20", "#d9a27c", "orange"),
    Look("⬟", "pentagon", "#6d5a00", "#e0c85a", "orange"),
    Look("★", "star-square", "#7a2e2e", "#e79a9a", "red"),
)


def spare_look(name: str) -> Look:
    """A look for a name without one of its own; the same name always gets the same look."""
    return _SPARE_LOOKS[zlib.crc32(name.encode()) % len(_SPARE_LOOKS)]


class Method(ABC):
    """A way to score pool rows.

    name: for the command line and file names. label: for headings. description: half a sentence for a person. look:
    the method's own, or None for a spare one. needs: what its numbers are computed from. The flags:

        sees_targets      its scores depend on the targets
        by_checkpoint     its scores are weighted sums over a finished store's checkpoints
        compares_vectors  its scores are cosines or dot products
        compares_words    its scores come from words that row and target share
        resamples         a subtask's score is built from the scores of single targets, so that targets can be redrawn

    A scoring keeps what a method computes in `files`; `evidence` reads them.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    description: ClassVar[str]
    look: ClassVar[Look | None] = None
    needs: ClassVar[Needs] = "pool"
    sees_targets: ClassVar[bool] = False
    by_checkpoint: ClassVar[bool] = False
    compares_vectors: ClassVar[bool] = False
    compares_words: ClassVar[bool] = False
    resamples: ClassVar[bool] = False

    def check(self, store: "Store", gradient: "GradientKind") -> None:
        """Raise `StoreError` if this method cannot score the store."""
        if self.by_checkpoint:
            store.require_complete()

    def files(self, scoring: "ScoringFolder", gradient: "GradientKind") -> list[Path]:
        """The files that `compute` makes: one per checkpoint, or a single one.

        gradient: the stored update, for a method that `needs` gradients.
        """
        if self.by_checkpoint:
            return [scoring.path / f"{self.name}-{epoch}.safetensors" for epoch in scoring.epochs]
        return [scoring.path / f"{self.name}.safetensors"]

    def computed(self, scoring: "ScoringFolder", gradient: "GradientKind") -> bool:
        """Whether all its files exist. For a store without checkpoints a method `by_checkpoint` has no files."""
        files = self.files(scoring, gradient)
        return bool(files) and all(path.is_file() for path in files)

    @abstractmethod
    def compute(self, context: "Context") -> None:
        """Make the files that are missing.

        Where one pass serves several methods, it may also make the files of others in `context.methods`.
        """

    @abstractmethod
    def evidence(
        self, scoring: "ScoringFolder", gradient: "GradientKind", seed: int, rows: slice, groups: "np.ndarray"
    ) -> "list[Evidence]":
        """What was computed, one entry per checkpoint.

        seed: of a draw. rows: the positions to return. groups: (K,) which targets a method that does not `resample`
        takes together; every target of a group has the group's score.

        Raises:
            StoreError: the evidence has not been computed.
        """

    def kept(self, scoring: "ScoringFolder", gradient: "GradientKind") -> "list[tuple[dict[str, np.ndarray], float]]":
        """The arrays of each file, memory-mapped, with the weight of its checkpoint.

        Raises:
            StoreError: a file is missing.
        """
        files = self.files(scoring, gradient)
        weights = [float(weight) for weight in scoring.weights] if self.by_checkpoint else [1.0]
        return list(zip(scoring.arrays(files, self.name), weights, strict=True))
