"""Fixtures that the tests of the app and of the browser share: a workspace with a real store of the toy model."""

import shutil
from pathlib import Path

import pytest

from gradsift.builder import build
from gradsift.config import BuildConfig
from gradsift.influence import score_targets
from gradsift.progress import Progress
from gradsift.store import Store
from gradsift.targets import parse_targets, read_targets
from gradsift.workspace import Workspace, sample_pool

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
    """A complete store of the sample's pool and one row without an answer, built with the two-layer model."""
    folder = tmp_path_factory.mktemp("toy")
    bad = folder / "broken.jsonl"
    bad.write_text(BAD_LINE + "\n" + "{not json\n" + _good(), encoding="utf-8")
    config = BuildConfig(
        model=str(tiny_model), max_length=256, limit_per_source=12, warmup_fraction=0.5, epochs=2, batch_size=2,
        lr=1e-3, lora_rank=2, dim=64, shard_rows=8,
    )  # fmt: skip
    build([*sample_pool(), bad], folder / "store", config, progress=Progress(quiet=True))
    return folder / "store"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_store: Path) -> Workspace:
    """A workspace whose only store is a copy of the toy store, called `toy`."""
    root = tmp_path / "workspace"
    shutil.copytree(toy_store, root / "stores" / "toy")
    monkeypatch.setenv("GRADSIFT_WORKSPACE", str(root))
    return Workspace(root)


@pytest.fixture
def scored(workspace: Workspace) -> Workspace:
    """The workspace with the target set `two`, scored by every method on the toy store."""
    found = parse_targets(TARGETS)
    workspace.save_targets("two", found.rows)
    score_targets(Store.open(workspace.store_path("toy")), read_targets(workspace.target_set("two").path).rows)
    return workspace


def _good() -> str:
    rows = (f'{{"prompt": "Count to {n}", "completion": "{" ".join(map(str, range(n)))}"}}' for n in range(2, 8))
    return "\n".join(rows) + "\n"
