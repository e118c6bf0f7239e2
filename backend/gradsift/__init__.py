"""gradsift: pick the training examples whose gradients help your target skill (LESS, Xia et al., ICML 2024).

    plan             estimate a build's time, memory and disk          (builder/plan.py)
    build            a pool of instruction data -> a gradient store    (builder/build.py)
    begin            the pool alone, for a draft before any build      (builder/build.py)
    Store            a store opened for reading                        (datastore/store.py)
    verify           check every hash and every row of a store         (datastore/verify.py)
    read_targets     target examples from a file                       (data/targets.py)
    target_features  their features in a file, for a machine without the model    (scoring/portable.py)
    score            every usable row's score for the targets, by any method      (selection/score.py)
    pick             the best rows within a budget, as a `Selection`   (export/selection.py)
    select           the same, written for a trainer                   (export/selection.py)
    explain          which words of a row help the targets             (analysis/tokens.py)
    evaluate         fine-tune on each method's picks and compare      (evaluation/run.py)

Names are imported on first use, so that `import gradsift` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradsift.analysis.tokens import explain as explain
    from gradsift.builder.build import begin as begin
    from gradsift.builder.build import build as build
    from gradsift.builder.plan import plan as plan
    from gradsift.config import BuildConfig as BuildConfig
    from gradsift.config import Engine as Engine
    from gradsift.data.targets import TargetError as TargetError
    from gradsift.data.targets import read_targets as read_targets
    from gradsift.datastore.store import Store as Store
    from gradsift.datastore.verify import verify as verify
    from gradsift.evaluation.run import evaluate as evaluate
    from gradsift.export.selection import Selection as Selection
    from gradsift.export.selection import pick as pick
    from gradsift.export.selection import select as select
    from gradsift.runtime.errors import GradsiftError as GradsiftError
    from gradsift.runtime.errors import StoreError as StoreError
    from gradsift.runtime.errors import UsageError as UsageError
    from gradsift.scoring.choices import Choices as Choices
    from gradsift.scoring.portable import target_features as target_features
    from gradsift.selection.budget import Budget as Budget
    from gradsift.selection.score import score as score

    __version__: str

_HOME = {  # public name -> the module it is imported from
    "BuildConfig": "config",
    "Engine": "config",
    "Choices": "scoring.choices",
    "Budget": "selection.budget",
    "Store": "datastore.store",
    "Selection": "export.selection",
    "plan": "builder.plan",
    "build": "builder.build",
    "begin": "builder.build",
    "read_targets": "data.targets",
    "target_features": "scoring.portable",
    "score": "selection.score",
    "pick": "export.selection",
    "select": "export.selection",
    "explain": "analysis.tokens",
    "evaluate": "evaluation.run",
    "verify": "datastore.verify",
    "GradsiftError": "runtime.errors",
    "UsageError": "runtime.errors",
    "StoreError": "runtime.errors",
    "TargetError": "data.targets",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _HOME:
        return getattr(import_module(f"gradsift.{_HOME[name]}"), name)
    raise AttributeError(f"module 'gradsift' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The version in pyproject.toml: from an installed package's records, or the file itself in a bare checkout."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path

    try:
        return version("gradsift")
    except PackageNotFoundError:
        import tomllib

        project = Path(__file__).resolve().parents[2] / "pyproject.toml"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
