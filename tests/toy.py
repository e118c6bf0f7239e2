"""Fixtures for the tests of the app and the browser: a workspace with a real store of the toy model.

conftest.py loads them for all tests, so that the store is built and scored once per run. As there, slow imports are
inside the functions that need them.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gradsift.workspace.workspace import Workspace

BAD_LINE = '{"messages": [{"role": "user", "content": "no answer"}]}'
TARGETS = """Subtask: capitals
Q: What is the capital of France?
A: Paris.

Subtask: sums
Q: How much is two and two?
A: Four.
"""


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A complete store of the sample's pool plus one row without an answer, built with the two-layer model."""
    from gradsift.builder.build import build
    from gradsift.config import BuildConfig
    from gradsift.runtime.progress import Progress
    from gradsift.workspace.workspace import sample_pool

    folder = tmp_path_factory.mktemp("toy")
    bad = folder / "broken.jsonl"
    bad.write_text(BAD_LINE + "\n" + "{not json\n" + _good(), encoding="utf-8")
    config = BuildConfig(
        model=str(tiny_model), max_length=256, limit_per_source=12, warmup_fraction=0.5, epochs=2, batch_size=2,
        lr=1e-3, lora_rank=2, dim=64, shard_rows=8,
    )  # fmt: skip
    build([*sample_pool(), bad], folder / "store", config, progress=Progress(quiet=True))
    return folder / "store"


@pytest.fixture(scope="session")
def toy_scorings(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `scorings` of a copy of the toy store, with `TARGETS` scored by every method."""
    from gradsift.data.targets import parse_targets
    from gradsift.datastore.store import Store
    from gradsift.scoring.methods import METHODS
    from gradsift.scoring.score_targets import score_targets

    copy = tmp_path_factory.mktemp("scored") / "store"
    shutil.copytree(toy_store, copy)
    score_targets(Store.open(copy), parse_targets(TARGETS).rows, list(METHODS))
    return copy / "scorings"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_store: Path) -> "Workspace":
    """A workspace whose only store is a copy of the toy store, called `toy`."""
    from gradsift.workspace.workspace import Workspace

    root = tmp_path / "workspace"
    shutil.copytree(toy_store, root / "stores" / "toy")
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(root))
    return Workspace(root)


@pytest.fixture
def scored(workspace: "Workspace", toy_scorings: Path) -> "Workspace":
    """The workspace with the target set `two`, scored by every method on the toy store."""
    from gradsift.data.targets import parse_targets

    workspace.save_targets("two", parse_targets(TARGETS).rows)
    shutil.copytree(toy_scorings, workspace.store_path("toy") / "scorings")
    return workspace


def _good() -> str:
    rows = (f'{{"prompt": "Count to {n}", "completion": "{" ".join(map(str, range(n)))}"}}' for n in range(2, 8))
    return "\n".join(rows) + "\n"
