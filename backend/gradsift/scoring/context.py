"""What a method has at hand when it computes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gradsift.config import GradientKind
from gradsift.data.encode import Encoded
from gradsift.datastore.store import Store
from gradsift.gradients.store_model import StoreModel
from gradsift.runtime.progress import Progress
from gradsift.scoring.evidence import ScoringFolder
from gradsift.scoring.target_features import usable_targets


@dataclass
class Context:
    """One scoring run.

    scoring: the folder for the files, with the targets. methods: names of all methods that this run computes.
    gradient: the kind of stored gradients that is compared.
    """

    store: Store
    scoring: ScoringFolder
    methods: Sequence[str]
    gradient: GradientKind
    progress: Progress

    @cached_property
    def model(self) -> StoreModel:
        """The store's model; its weights are loaded for the length of a `session`."""
        return StoreModel(self.store)

    @cached_property
    def encoded(self) -> list[Encoded]:
        """The targets as tokens.

        Raises:
            TargetError: a target cannot be used. StoreError: the installed tokenizer is not the store's.
        """
        return usable_targets(self.model, self.scoring.targets)
