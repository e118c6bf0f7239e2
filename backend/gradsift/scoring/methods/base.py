"""RDS+ and the draft: vectors of the base model, made by one forward pass for both (`scoring/base_model.py`)."""

from pathlib import Path
from typing import TYPE_CHECKING

from gradsift.scoring.method import Look, Method
from gradsift.scoring.vectors import VectorMethod

if TYPE_CHECKING:
    from gradsift.scoring.context import Context
    from gradsift.scoring.evidence import ScoringFolder


class BaseMethod(VectorMethod):
    """Compares the base model's vectors of rows and targets; missing ones are computed first."""

    needs = "base model"

    def compute(self, context: "Context") -> None:
        """Compute the vectors for all such methods of the run in one pass, then pass over each method's vectors."""
        from gradsift.datastore.shards import read_tensors, write_tensors
        from gradsift.scoring.products import stored_products

        store, scoring, progress = context.store, context.scoring, context.progress
        methods = [method for method in METHODS if method.name in context.methods]
        _ensure_vectors(context, methods)
        for method in methods:
            vectors, _ = read_tensors(target_vectors(scoring, method))
            progress.stage(
                f"score-{method.name}", f"Scoring the store by {method.label}", store.manifest.usable, "rows"
            )
            products = stored_products(store, method.name, 0, vectors[method.name], progress)
            (path,) = method.files(scoring, context.gradient)
            write_tensors(path, products, {"kind": method.name})


def _ensure_vectors(context: "Context", methods: list[BaseMethod]) -> None:
    """Compute missing vectors of targets and pool. The device is freed before the products, which take minutes."""
    from gradsift.datastore.shards import write_tensors
    from gradsift.scoring.base_model import BaseExtractor, ensure_base, missing_base

    store, scoring, model = context.store, context.scoring, context.model
    names = [method.name for method in methods]
    missing = [method for method in methods if not target_vectors(scoring, method).is_file()]
    if not missing and not missing_base(store, names):
        return
    if missing:
        _ = context.encoded  # refuses unusable targets before the weights are loaded
    with model.session(context.progress):
        if missing:
            kinds = [method.name for method in missing]
            vectors = BaseExtractor(
                model.base.module, kinds, store.manifest.token_budget, store.manifest.config.seed
            ).extract(context.encoded)
            for method in missing:
                path = target_vectors(scoring, method)
                write_tensors(path, {method.name: vectors[method.name]}, {"kind": "targets"})
        ensure_base(model, names, context.progress)


def target_vectors(scoring: "ScoringFolder", method: Method) -> Path:
    """Path of the base model's vectors of the targets."""
    return scoring.path / f"targets-base-{method.name}.safetensors"


class RdsPlus(BaseMethod):
    """Position-weighted mean of the final hidden states (Ivison et al. 2025, arXiv 2503.01807)."""

    name, label = "rds+", "RDS+"
    description = "the base model's mean hidden state of the row points where the targets' does"
    look = Look("◆", "diamond", "#134e4a", "#2ba79b", "green")


class Draft(BaseMethod):
    """The output layer's gradient at the base model."""

    name, label = "draft", "Draft"
    description = "an approximation of LESS: the base model's gradient, of its output layer alone"
    look = Look("◗", "hexagon", "#0b6fa8", "#7cc7f2", "blue")


METHODS: tuple[BaseMethod, ...] = (RdsPlus(), Draft())
