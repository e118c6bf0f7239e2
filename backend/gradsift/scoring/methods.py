"""The selection methods by name. A method that is registered here appears on the command line and in the app."""

from dataclasses import dataclass
from typing import Literal

from gradsift.runtime.errors import UsageError


@dataclass(frozen=True)
class Method:
    """A way to score pool rows.

    evidence: where its numbers come from. Vectors that are compared with the targets': stored `features` or
    `representations` at every checkpoint (Eq. 2), or the `base` model's, which one forward pass makes where they are
    missing. Words of rows and targets: `text` (each target scores alone) or `ngrams` (a subtask's targets together).
    Without a look at the targets: facts of the `rows`, the build's `metrics`, or `none`.
    """

    name: str
    label: str
    description: str
    evidence: Literal["features", "representations", "base", "text", "ngrams", "rows", "metrics", "none"]

    @property
    def sees_targets(self) -> bool:
        """Whether its scores depend on the targets."""
        return self.evidence not in ("rows", "metrics", "none")

    @property
    def by_checkpoint(self) -> bool:
        """Whether its scores are weighted sums over a finished store's checkpoints."""
        return self.evidence in ("features", "representations", "metrics")

    @property
    def compares_vectors(self) -> bool:
        """Whether its scores are cosines or dot products."""
        return self.evidence in ("features", "representations", "base")

    @property
    def compares_words(self) -> bool:
        """Whether its scores come from words that row and target share."""
        return self.evidence in ("text", "ngrams")

    @property
    def resamples(self) -> bool:
        """Whether a subtask's score is made of its targets' one by one, so that targets can be drawn again."""
        return self.sees_targets and self.evidence != "ngrams"


_ALL = (
    Method("less", "LESS", "training on the row would lower the loss on the targets: gradient similarity", "features"),
    Method("bm25", "BM25", "the row shares rare words with the targets", "text"),
    Method("rds", "RDS", "the row's last hidden state points where the targets' does", "representations"),
    Method("rds+", "RDS+", "the base model's mean hidden state of the row points where the targets' does", "base"),
    Method("draft", "Draft", "an approximation of LESS: the base model's gradient, of its output layer alone", "base"),
    Method("dsir", "DSIR", "a seeded draw: rows with words and pairs of words like the targets' weigh more", "ngrams"),
    Method("length", "Length", "the longest answers, whatever the targets", "rows"),
    Method("loss", "Loss", "the answers that the model finds hardest, whatever the targets", "metrics"),
    Method("random", "Random", "a seeded draw, the floor every method has to beat", "none"),
)

METHODS: dict[str, Method] = {method.name: method for method in _ALL}
DEFAULT_METHODS = ("less", "bm25", "rds", "random")  # scored where nobody chooses; the others are asked for by name


def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}; choose among {', '.join(METHODS)}.")
    return METHODS[name]
