"""The selection methods by name. A method that is registered here appears on the command line and in the app."""

from dataclasses import dataclass
from typing import Literal

from gradsift.errors import UsageError


@dataclass(frozen=True)
class Method:
    """A way to score pool rows.

    evidence: where its numbers come from: stored `features` or `representations` (compared with the targets' at every
    checkpoint, Eq. 2), the `text` of rows and targets, or `none`.
    """

    name: str
    label: str
    description: str
    evidence: Literal["features", "representations", "text", "none"]


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "less", "LESS", "training on the row would lower the loss on the targets: gradient similarity", "features"
        ),
        Method("bm25", "BM25", "the row shares rare words with the targets", "text"),
        Method("rds", "RDS", "the row's last hidden state points where the targets' does", "representations"),
        Method("random", "Random", "a seeded draw, the floor every method has to beat", "none"),
    )
}


def get_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(f"There is no method {name!r}; choose among {', '.join(METHODS)}.")
    return METHODS[name]
