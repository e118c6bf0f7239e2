"""gradsift: pick the training examples whose gradients help your target skill (LESS, Xia et al., ICML 2024).

    build        a pool of instruction data -> a gradient datastore        (builder.py)
    begin        the pool alone, for a draft before any build              (builder.py)
    Store        a datastore opened for reading                            (store.py)
    read_targets target examples from a file                               (targets.py)
    target_features  their features in a file, for a machine without the model (portable.py)
    score        every usable row's score for the targets, by any method   (picks.py)
    select       the best rows within a budget, written for a trainer      (picks.py)

Names are imported on first use, so that `import gradsift` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradsift.builder.build import begin, build
    from gradsift.config import BuildConfig, Engine
    from gradsift.data.targets import read_targets
    from gradsift.datastore.store import Store
    from gradsift.runtime.errors import GradsiftError
    from gradsift.scoring.portable import target_features
    from gradsift.selection.picks import score, select

__all__ = [
    "BuildConfig",
    "Engine",
    "GradsiftError",
    "Store",
    "begin",
    "build",
    "read_targets",
    "score",
    "select",
    "target_features",
]

_HOME = {
    "BuildConfig": "config",
    "Engine": "config",
    "GradsiftError": "runtime.errors",
    "Store": "datastore.store",
    "begin": "builder.build",
    "build": "builder.build",
    "read_targets": "data.targets",
    "score": "selection.picks",
    "select": "selection.picks",
    "target_features": "scoring.portable",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"gradsift.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradsift' has no attribute {name!r}")
