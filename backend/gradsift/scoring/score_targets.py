"""Targets x store -> a kept `Scoring`: every requested method computes what is missing."""

from collections.abc import Sequence

from gradsift.config import GradientKind
from gradsift.data.pool import Row
from gradsift.data.targets import write_targets
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.errors import StoreError
from gradsift.runtime.locks import locked
from gradsift.runtime.progress import Progress
from gradsift.scoring.context import Context
from gradsift.scoring.methods import DEFAULT_METHODS, METHODS, get_method
from gradsift.scoring.scoring import Scoring, scoring_path


def score_targets(
    store: Store,
    targets: Sequence[Row],
    methods: Sequence[str] = DEFAULT_METHODS,
    gradient: GradientKind | None = None,
    progress: Progress | None = None,
) -> Scoring:
    """The evidence of `methods` for `targets`: opened where it is kept, computed where it is missing.

    gradient: the stored update that LESS compares; by default the store's first kind.

    Raises:
        TargetError: targets that are too long or have nothing to learn, by number.
        StoreError: the store is unfinished, lacks the gradient kind, or was made with another model or projector. A
            store with a pool but no checkpoint yet is enough for methods that need no checkpoints.
    """
    if store.epochs:
        store.require_complete()
    gradient = gradient or store.manifest.config.gradients[0]
    for name in methods:
        get_method(name).check(store, gradient)
    scoring = Scoring.at(scoring_path(store, targets), store, targets)
    if not len(scoring.rows):
        raise StoreError(
            f"No row of {store.path} has a finite gradient: the warmup diverged; build with a smaller --lr."
        )
    todo = [method for method in METHODS.values() if method.name in methods and not scoring.has(method.name, gradient)]
    context = Context(store, scoring, [method.name for method in todo], gradient, progress or Progress(quiet=True))
    if not (scoring.path / "targets.jsonl").is_file():
        _ = context.encoded  # refuses unusable targets; kept ones were checked when they were new
    if todo:
        store.check_pool()
        with locked(scoring.path):
            atomic.sweep(scoring.path)
            write_targets(scoring.path / "targets.jsonl", targets)
            for method in todo:
                if not method.computed(scoring, gradient):  # an earlier method may have made its files
                    method.compute(context)
    return scoring
