"""A build killed anywhere and started again leaves intact shards alone and equals an unbroken build byte for byte."""

import random
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest
from commands import gradsift, start
from moments import MOMENTS, kill_at
from stores import assert_same_files, shard_files

from gradsift.builder import build as builder
from gradsift.builder import extraction
from gradsift.config import BuildConfig
from gradsift.datastore.shards import read_tensors
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.gradients.extract import FeatureExtractor
from gradsift.runtime.progress import Cancelled, Progress


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_killed_ten_times_and_resumed(tiny_model: Path, tiny_pool: Path, tmp_path: Path) -> None:
    """If the watcher is late and a build ends before its moment comes, the next moments kill another build."""
    flags = ["--model", tiny_model, "--max-length", 96, "--warmup-fraction", 0.5, "--epochs", 2, "--batch-size", 2]
    flags += ["--lora-rank", 8, "--dim", 1024, "--gradient", "adam", "--gradient", "sgd"]
    unbroken, stores = tmp_path / "unbroken", [tmp_path / "store-0"]
    assert gradsift("build", tiny_pool, *flags, "--out", unbroken).code == 0

    chance, stages, whole = random.Random(0), [], {}
    for moment in cycle(MOMENTS):
        stage = kill_at(moment, start("build", tiny_pool, *flags, "--out", stores[-1]), stores[-1], chance)
        whole = assert_untouched(stores[-1], whole)
        if stage is not None:
            stages.append(stage)
        else:
            stores.append(tmp_path / f"store-{len(stores)}")
            whole = {}
        if len(stages) == 10:
            break
    assert {"warmup", "features-1"} < set(stages)

    assert gradsift("build", tiny_pool, *flags, "--out", stores[-1]).code == 0
    assert_untouched(stores[-1], whole)
    for store in stores:
        assert_same_files(store, unbroken)
        assert verify(store) == []


def assert_untouched(store: Path, before: dict[Path, tuple[int, int]]) -> dict[Path, tuple[int, int]]:
    """Earlier shards have kept inode and time, and every shard present is intact; returns those present."""
    now = shard_files(store)
    assert {path: now.get(path) for path in before} == before
    for path in now:
        if path.suffix == ".safetensors":
            read_tensors(path)  # raises unless the shard is intact
    return now


class Power:
    """Cuts a build off, as a crash would, at the n-th call of a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, after: int) -> None:
        self.original, self.left = getattr(owner, name), after
        monkeypatch.setattr(owner, name, self._call(self.original))

    def _call(self, original: Callable) -> Callable:
        def call(*args: object, **named: object) -> object:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            return original(*args, **named)

        return call


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [
        (Store, "save_manifest", 0),  # the pool has been read, the store not begun
        (builder.Warmup, "run", 0),
        (builder.Checkpoint, "save", 1),  # the Trainer has saved its second epoch, we have not
        (Store, "save_manifest", 1),  # the warmup is over, but the manifest does not record it yet
        (FeatureExtractor, "extract", 2),
        (extraction, "write_shard", 4),  # adam of the second shard is written, sgd is not
        (Store, "write_metrics", 7),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_cut_off_between_two_steps(
    tiny_store: Store,
    tiny_pool: Path,
    tiny_config: BuildConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    after: int,
) -> None:
    def build() -> None:
        builder.build([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))

    with monkeypatch.context() as cut:
        Power(cut, owner, name, after)
        with pytest.raises(KeyboardInterrupt):
            build()
    whole = shard_files(tmp_path / "store")
    build()
    assert whole.items() <= shard_files(tmp_path / "store").items()
    assert_same_files(tmp_path / "store", tiny_store.path)


def test_asked_to_stop_it_stops_at_the_next_row_and_goes_on(
    tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path
) -> None:
    class Impatient(Progress):
        def advance(self, units: int = 1) -> None:
            self._stopping = self.status.stage == "features-2" and self.status.done >= 24
            super().advance(units)

    with pytest.raises(Cancelled, match="run the same command again to do the rest"):
        builder.build([tiny_pool], tmp_path / "store", tiny_config, progress=Impatient(quiet=True))
    assert [p.name for p in sorted((tmp_path / "store/features/epoch-2").glob("adam*"))] == [
        f"adam-0000{i}.safetensors" for i in range(3)
    ]
    builder.build([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
    assert_same_files(tmp_path / "store", tiny_store.path)


def test_what_killed_writers_left_is_swept(
    tiny_copy: Store, tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    (tiny_copy.path / "checkpoints" / ".tmp-epoch-2").mkdir()
    (tiny_copy.path / "checkpoints" / ".tmp-epoch-2" / "state.json").touch()
    (tiny_copy.path / "features" / "epoch-1" / ".tmp-x").write_bytes(b"half a shard")
    theirs = tiny_copy.path / "scorings" / "key" / ".tmp-y"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    builder.build([tiny_pool], tiny_copy.path, tiny_config, progress=Progress(quiet=True))
    assert_same_files(tiny_copy.path, tiny_store.path)
    assert theirs.exists()  # another process may be scoring, under its own lock


def test_shards_that_were_lost_or_damaged_are_made_again_and_no_others(
    tiny_copy: Store, tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    lost = [tiny_copy.shard_path("adam", 0, 1), tiny_copy.shard_path("metrics", 1, 4)]
    damaged = [
        tiny_copy.shard_path("rds", 1, 0),
        tiny_copy.shard_path("sgd", 0, 1),
        tiny_copy.shard_path("metrics", 0, 0),
    ]
    for path in lost:
        path.unlink()
    for path in damaged:
        path.write_bytes(path.read_bytes()[:-1])
    before = shard_files(tiny_copy.path)
    builder.build([tiny_pool], tiny_copy.path, tiny_config, progress=Progress(quiet=True))
    after = shard_files(tiny_copy.path)
    assert {path for path in after if after[path] != before.get(path)} == {*lost, *damaged}
    assert_same_files(tiny_copy.path, tiny_store.path)
