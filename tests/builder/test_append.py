"""Rows appended to a finished store: as if they had been there from the start, with nothing rebuilt."""

import json
import random
import shutil
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from commands import gradsift, start
from moments import Moment, kill_at
from safetensors.numpy import load_file
from stores import assert_same_files, contents, flip, shard_files

import gradsift as api
from gradsift.analysis.summary import describe, inspect
from gradsift.builder import build as builder
from gradsift.builder.append import PENDING
from gradsift.builder.engine_local import Extraction
from gradsift.builder.ingest import NothingUsableError
from gradsift.config import BuildConfig
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.progress import Cancelled, Progress
from gradsift.text.index import near, scripts
from gradsift.text.search import search_rows

WORDS = ["cat", "dog", "capital", "country", "text", "question", "answer", "mat"]


def rows(source: str, count: int, seed: int) -> str:
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        answer = " ".join(chance.choices(WORDS, k=chance.randint(2, 24)))
        turns = [
            {"role": "user", "content": f"{source} {number}: where is the {chance.choice(WORDS)}?"},
            {"role": "assistant", "content": answer},
        ]
        lines.append(json.dumps({"dataset": source, "messages": turns}))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four sources; the last has a bad line and shares ids with the first."""
    folder = tmp_path_factory.mktemp("sources")
    texts = [rows(f"s{n}", 14, n) for n in range(3)] + [rows("s3", 11, 3) + "{half a line\n"]
    twins = [json.dumps({**json.loads(line), "id": f"s0:{n + 1}"}) for n, line in enumerate(texts[3].splitlines()[:2])]
    texts[3] = "\n".join([*twins, *texts[3].splitlines()[2:]]) + "\n"
    for number, text in enumerate(texts):
        (folder / f"s{number}.jsonl").write_text(text)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> BuildConfig:
    return BuildConfig(
        model=str(tiny_model), max_length=96, warmup_fraction=0.5, epochs=2, batch_size=4, lr=2e-3, lora_rank=4, dim=256
    )


@pytest.fixture(scope="module")
def three(files: list[Path], config: BuildConfig, tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("three") / "store"
    return builder.build(files[:3], out, config, progress=Progress(quiet=True))


@pytest.fixture
def copy(three: Store, tmp_path: Path) -> Store:
    return Store.open(shutil.copytree(three.path, tmp_path / "copy"))


def append(store: Store, pool: list[Path], config: BuildConfig) -> tuple[Store, list[str]]:
    """Append quietly; returns the store and the notes."""
    progress = Progress(quiet=True)
    return builder.build(pool, store.path, config, append=True, progress=progress), progress.status.notes


def of_all(files: list[Path], store: Store, config: BuildConfig, out: Path) -> Store:
    """One store of all files, with the checkpoints of `store`."""
    checkpoints = tuple(str(store.path / "checkpoints" / name) for name in store.epochs)
    whole = config.model_copy(update={"checkpoints": checkpoints})
    return builder.build(files, out, whole, progress=Progress(quiet=True))


def test_same_shards_give_the_very_same_numbers(files: list[Path], config: BuildConfig, tmp_path: Path) -> None:
    """Shards of 14 rows, and 42 rows before the appended ones: both stores are cut and packed in the same way."""
    config = config.model_copy(update={"shard_rows": 14, "gradients": ("adam", "sign")})
    store = builder.build(files[:3], tmp_path / "store", config, progress=Progress(quiet=True))
    whole = of_all(files, store, config, tmp_path / "whole")
    grown, _ = append(store, files[3:], config)
    assert grown.shard_ranges == whole.shard_ranges
    for ours, theirs in zip(grown.shard_paths(), whole.shard_paths(), strict=True):
        if ours.suffix == ".safetensors":
            a, b = load_file(ours), load_file(theirs)
            assert all(np.array_equal(a[name], b[name]) for name in b), ours
    assert grown.metrics().equals(whole.metrics())


def test_a_store_with_a_source_appended_ranks_as_one_of_all(
    copy: Store, files: list[Path], config: BuildConfig, tmp_path: Path, tiny_targets: Path
) -> None:
    whole = of_all(files, copy, config, tmp_path / "whole")
    grown, _ = append(copy, files[3:], config)
    assert grown.shard_ranges != whole.shard_ranges  # so that batches are packed differently
    assert grown.pool().drop(columns="file").equals(whole.pool().drop(columns="file"))
    assert list(grown.texts([50, 3])["raw"]) == list(whole.texts([50, 3])["raw"])
    assert list(grown.coverage().itertuples()) == list(whole.coverage().itertuples())
    targets = read_targets(tiny_targets).rows
    for method in ("less", "rds", "bm25"):
        ours, theirs = (api.score(store, targets, [method]).set_index("row") for store in (grown, whole))
        assert np.abs(ours["score"] - theirs["score"]).max() < 2e-4  # for numbers halfway between two int8 steps
        assert np.median(np.abs(ours["score"] - theirs["score"])) < 1e-6
        moved = (ours["rank"] - theirs["rank"]).abs()
        assert moved.max() <= 1, method
        assert (moved == 0).mean() > 0.9
    assert (near(grown) == near(whole)).all()
    assert list(scripts(grown)) == list(scripts(whole))
    assert list(search_rows(grown, "s3")) == list(search_rows(whole, "s3")) != []


def test_nothing_that_was_there_is_touched(copy: Store, files: list[Path], config: BuildConfig) -> None:
    before, old = shard_files(copy.path), contents(copy.path)
    pool = (copy.path / "pool.parquet").stat()
    (copy.path / "scorings" / "of-the-rows-before").mkdir(parents=True)
    grown, notes = append(copy, files[3:], config)
    after = shard_files(copy.path)
    assert before.items() < after.items()
    assert (copy.path / "pool.parquet").stat() == pool
    assert {name for name in old if contents(copy.path)[name] != old[name]} == {"manifest.json"}
    assert not (copy.path / "scorings").exists()
    assert {
        "1 of 12 rows appended from s3.jsonl are excluded; gradsift inspect lists each with its reason.",
        "1 rows appended from s3.jsonl are cut at 96 tokens.",
    } <= set(notes)
    assert grown.complete
    assert verify(grown.path) == []
    assert grown.lineage == copy.fingerprint != grown.fingerprint
    assert (grown.manifest.rows, grown.manifest.usable) == (54, 53)
    assert grown.ids[42:44] == ["s0:1#2", "s0:2#2"]  # an id belongs to one row, whenever it was added
    described = inspect(grown)
    assert [part["rows"] for part in described["parts"]] == [42, 12]
    assert "appended 12 rows (11 usable): s3.jsonl" in describe(described)


def test_appending_again_adds_nothing_and_repairs_damage(
    copy: Store, files: list[Path], config: BuildConfig, tmp_path: Path
) -> None:
    grown, _ = append(copy, files[3:], config)
    before = contents(grown.path)
    for pool in (files[3:], files[:3]):
        again, notes = append(grown, pool, config)
        assert any(note.startswith("There is nothing to add") for note in notes)
        assert again.fingerprint == grown.fingerprint
    flip(grown.shard_path("adam", 1, len(grown.shard_ranges) - 1), -1)
    append(grown, files[3:], config)
    grown.shard_path("adam", 0, 0).unlink()
    builder.build(files[:3], grown.path, config, progress=Progress(quiet=True))  # the first build's command as well
    assert contents(grown.path) == before
    new = tmp_path / "s4.jsonl"
    new.write_text(rows("s4", 5, 4))
    with pytest.raises(UsageError, match=r"already has the rows of s3\.jsonl: append only the other files"):
        append(grown, [files[3], new], config)


def test_two_appends_one_after_the_other(copy: Store, files: list[Path], config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text(rows("s1", 9, 9))
    append(copy, files[3:], config)
    grown, _ = append(copy, [tmp_path / "more.jsonl"], config.model_copy(update={"limit_per_source": 4}))
    assert [part.rows for part in grown.manifest.parts] == [42, 12, 4]
    assert [part.limit_per_source for part in grown.manifest.parts] == [None, None, 4]
    coverage = grown.coverage().set_index("source").loc["s1"]
    assert (coverage["rows_in_file"], coverage["rows_in_store"], coverage["usable"]) == (14 + 9, 14 + 4, 18)
    assert list(grown.pool().index) == list(range(58))
    assert grown.lineage == copy.fingerprint
    assert verify(grown.path) == []


def test_a_restart_begins_without_what_was_appended(copy: Store, files: list[Path], config: BuildConfig) -> None:
    before = contents(copy.path)
    append(copy, files[3:], config)
    builder.build(files[:3], copy.path, config, restart=True, progress=Progress(quiet=True))
    assert contents(copy.path) == before


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora_rank": 8, "lora_alpha": 32}, "lora_rank 4 there, 8 here; lora_alpha 16 there, 32 here"),
        ({"dim": 64}, "dim 256 there, 64 here"),
        ({"template": "tulu"}, "another tokenizer or template"),
    ],
)
def test_other_parameters_are_refused(
    copy: Store, files: list[Path], config: BuildConfig, changed: dict, message: str
) -> None:
    before = contents(copy.path)
    with pytest.raises(StoreError, match="so leave those flags out") as caught:
        append(copy, files[3:], config.model_copy(update=changed))
    assert message in str(caught.value)
    assert contents(copy.path) == before


def test_an_unfinished_store_and_an_unusable_pool_are_refused(
    copy: Store, files: list[Path], config: BuildConfig, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text("{\n")
    before = contents(copy.path)
    with pytest.raises(NothingUsableError):
        append(copy, [tmp_path / "bad.jsonl"], config)
    assert contents(copy.path) == before
    copy.shard_path("rds", 1, 1).unlink()
    with pytest.raises(StoreError, match="is not finished"):
        append(copy, files[3:], config)


def test_given_up_for_another_append(
    copy: Store, files: list[Path], config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's leftovers are removed: its rows, its future manifest, its surplus shards."""
    shutil.copytree(copy.path, tmp_path / "other")
    (tmp_path / "short.jsonl").write_text(rows("s5", 3, 5))
    expected, _ = append(Store.open(tmp_path / "other"), [tmp_path / "short.jsonl"], config)
    created = []
    original = Extraction.write

    def write(self: Extraction, epoch: int, *about) -> None:
        if epoch == 1:
            raise Cancelled
        created.append(original(self, epoch, *about))

    with monkeypatch.context() as patch:
        patch.setattr(Extraction, "write", write)
        with pytest.raises(Cancelled):
            append(copy, files[3:], config)
    assert created
    assert Store.open(copy.path).complete  # the old store stays usable throughout
    assert Store.open(copy.path).fingerprint == copy.fingerprint
    append(copy, [tmp_path / "short.jsonl"], config)
    assert_same_files(copy.path, expected.path)


@pytest.mark.slow
def test_killed_in_mid_append_and_resumed(
    three: Store, files: list[Path], config: BuildConfig, tmp_path: Path, tiny_targets: Path
) -> None:
    """Through the command line, whose flags default to the store's own.

    If the watcher is late and an append ends before its moment, the next moments kill another one.
    """
    unbroken, stores = Path(shutil.copytree(three.path, tmp_path / "unbroken")), []
    command = ["build", files[3], "--model", config.model, "--append", "--out"]
    assert gradsift(*command, unbroken).code == 0
    moments = [Moment("pool-2.parquet"), Moment(PENDING, 1, 0.005)]
    moments += [Moment(f"features/epoch-{n}/*", 1, 0.01) for n in (1, 2)]
    chance, killed, ended = random.Random(1), 0, True
    for moment in cycle(moments):
        if ended:
            stores.append(Path(shutil.copytree(three.path, tmp_path / f"store-{len(stores)}")))
            whole = shard_files(stores[-1])
        ended = kill_at(moment, start(*command, stores[-1]), stores[-1], chance) is None
        assert whole.items() <= shard_files(stores[-1]).items()
        whole = shard_files(stores[-1])
        left = Store.open(stores[-1])
        assert left.complete
        if left.fingerprint == three.fingerprint:
            assert verify(stores[-1]) == []
        killed += not ended
        if killed == 4:
            break
    assert gradsift(*command, stores[-1]).code == 0
    assert whole.items() <= shard_files(stores[-1]).items()
    for store in stores:
        assert_same_files(store, unbroken)
    broken = stores[-1]
    refused = gradsift(*command, broken, "--dim", 64)
    assert (refused.code, "dim 256 there, 64 here" in refused.error) == (1, True)
    wrong = gradsift(*command, broken, "--restart")
    assert (wrong.code, wrong.error) == (2, "--append keeps what --restart discards: give only one of them.")
