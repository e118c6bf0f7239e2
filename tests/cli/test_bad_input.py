"""Bad input to the commands: an exit code, one clear sentence on standard error, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Command, gradsift
from stores import assert_same_files, contents, flip, shard_files

from gradsift.datastore.store import Store
from gradsift.scoring.methods import METHODS

SMALL = ["--max-length", 96, "--warmup-fraction", 0.5, "--epochs", 2, "--batch-size", 4, "--lora-rank", 4, "--dim", 256]
SMALL += ["--lr", 2e-3, "--gradient", "adam", "--gradient", "sgd"]  # `tiny_config` as flags
GOOD = json.dumps({"messages": [{"role": "user", "content": "where?"}, {"role": "assistant", "content": "here"}]})


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(line + "\n" for line in lines))
    return path


def build(pool: Path, model: object, out: Path, *flags: object, **options: object) -> Command:
    return gradsift("build", pool, "--model", model, "--out", out, *SMALL, *flags, **options)


def score(store: Store, targets: Path, *flags: object) -> Command:
    return gradsift("score", store.path, "--targets", targets, *flags, "--out", targets.parent / "scores.parquet")


# -- the pool


@pytest.mark.parametrize(
    ("lines", "flags", "message"),
    [
        ([], [], "There is no row in pool.jsonl: check that this is the right data."),
        (["", "  "], [], "There is no row in pool.jsonl"),
        (
            [json.dumps({"messages": [{"role": "user", "content": "hello"}]})] * 3,
            [],
            "None of the 3 rows of {pool} can be used: 3 x no assistant turn.",
        ),
        (
            [GOOD.replace("where", "where " * 40)] * 2,
            ["--max-length", 32],
            "None of the 2 rows of {pool} can be used: 2 x no answer token is left: the answer begins after token 32. "
            "Raise --max-length.",
        ),
        (
            ["not", "json"],
            [],
            "None of the 2 rows of {pool} can be used: 2 x not valid JSON: Expecting value at column 1.",
        ),
    ],
)
def test_a_pool_without_a_usable_row(tiny_model: Path, tmp_path: Path, lines: list, flags: list, message: str) -> None:
    pool = write(tmp_path / "pool.jsonl", *lines)
    refused = build(pool, tiny_model, tmp_path / "store", *flags)
    assert refused.code == 1
    assert refused.error.startswith(message.format(pool=pool))
    assert refused.out == ""
    assert json.loads((tmp_path / "store" / "job" / "status.json").read_text())["message"] == refused.error
    assert [p.name for p in (tmp_path / "store").rglob("*") if p.is_file() and p.name[0] != "."] == ["status.json"]
    write(pool, *[GOOD] * 9)
    assert build(pool, tiny_model, tmp_path / "store", *flags).code == 0


def test_a_missing_path(tiny_model: Path, tmp_path: Path) -> None:
    refused = build(tmp_path / "no.jsonl", tiny_model, tmp_path / "store")
    assert (refused.code, refused.error) == (1, f"{tmp_path}/no.jsonl does not exist: check the path.")


# -- the model and the flags


@pytest.mark.parametrize("model", ["nobody/no-such-model", "gpt2", "/no/such/folder", "two words", ""])
def test_an_unknown_model(tiny_pool: Path, tmp_path: Path, model: str) -> None:
    refused = build(tiny_pool, model, tmp_path / "store", seconds=30)
    assert refused.code == 1
    assert refused.error.startswith(f"The model {model!r} cannot be loaded: it is not 'smollm2', not a folder with a")


def test_an_unknown_model_without_a_network_does_not_hang(tiny_pool: Path, tmp_path: Path) -> None:
    """Without HF_HUB_OFFLINE the hub's own client would retry for a minute."""
    nowhere = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "gradsift", "build", tiny_pool, "--model", "nobody/none", "--out", tmp_path / "s"]
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **nowhere}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert [line[:40] for line in done.stderr.splitlines()] == ["gradsift: The model 'nobody/none' cannot"]


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_model_that_is_damaged(tiny_pool: Path, tiny_model: Path, tmp_path: Path, broken: str) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (model / broken).write_bytes((model / broken).read_bytes()[:300])
    refused = build(tiny_pool, model, tmp_path / "store")
    assert refused.code == 1
    assert refused.error.startswith(f"The model {str(model)!r} cannot be loaded")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dim", 7], "--dim 7: input should be a multiple of 8."),
        (["--dim", 0], "--dim 0: input should be greater than or equal to 8."),
        (["--epochs", 0], "--epochs 0: input should be greater than or equal to 1."),
        (["--lr", "nan"], "--lr nan: input should be a finite number."),
        (["--lr", -1], "--lr -1.0: input should be greater than 0."),
        (["--warmup-fraction", 1.5], "--warmup-fraction 1.5: input should be less than or equal to 1."),
        (["--max-length", 4], "--max-length 4: input should be greater than or equal to 8."),
        (["--limit-per-source", 0], "--limit-per-source 0: input should be greater than or equal to 1."),
        (["--template", "no.jinja"], "--template no.jinja: neither chat, tulu nor a readable file"),
    ],
)
def test_a_flag_out_of_range(tiny_pool: Path, tiny_model: Path, tmp_path: Path, flags: list, message: str) -> None:
    refused = build(tiny_pool, tiny_model, tmp_path / "store", *flags)
    assert refused.code == 2
    assert refused.error.startswith(message)
    assert not (tmp_path / "store").exists()


def test_layers_the_model_does_not_have(tiny_pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    refused = build(tiny_pool, tiny_model, tmp_path / "store", "--lora-targets", "c_attn,c_proj")
    assert refused.code == 1
    assert refused.error.startswith(
        "The model has no layer named c_attn or c_proj; its linear layers are called down_proj"
    )
    refused = build(tiny_pool, tiny_model, tmp_path / "store", "--lora-targets", ",")
    assert refused.code == 2
    assert refused.error.startswith("--lora-targets ")


@pytest.mark.parametrize("flag", ["--projection", "--store-dtype", "--adam", "--dtype", "--gradient"])
def test_a_choice_there_is_not(tiny_pool: Path, tiny_model: Path, tmp_path: Path, flag: str) -> None:
    refused = build(tiny_pool, tiny_model, tmp_path / "store", flag, "nonsense")
    assert refused.code == 2
    message = refused.err.splitlines()[-1]
    assert flag in message
    assert "nonsense" in message
    assert {"--projection": "'sparse'", "--store-dtype": "'bit'", "--adam": "'paper'"}.get(flag, "'") in message


# -- targets, methods, formats, budgets


def test_targets_that_cannot_be_used(tiny_store: Store, tiny_targets: Path, tmp_path: Path) -> None:
    good = tiny_targets.read_text().splitlines()
    no_answer = json.dumps({"messages": [{"role": "user", "content": "where?"}]})
    long = json.dumps({"prompt": "word " * 700, "completion": "yes"})
    cases = [
        ([*good, long], ["Target 4 (", "more than the model's window of 512", "cannot be used; fix or remove"]),
        ([good[0], no_answer], ["targets.jsonl, line 2: no assistant turn; fix or remove it and run again."]),
        ([good[0], "{", no_answer], ["targets.jsonl, line 2 (and 1 more): not valid JSON"]),
        ([], ["There is no row in targets.jsonl"]),
    ]
    for lines, parts in cases:
        refused = score(tiny_store, write(tmp_path / "targets.jsonl", *lines))
        assert refused.code == 1
        for part in parts:
            assert part in refused.error
    refused = score(tiny_store, tmp_path / "missing.jsonl")
    assert (refused.code, refused.error) == (1, f"{tmp_path}/missing.jsonl does not exist: check the path.")
    assert not (tmp_path / "scores.parquet").exists()


def test_a_method_a_format_a_budget_there_is_not(tiny_store: Store, tiny_targets: Path, tmp_path: Path) -> None:
    select = ["select", tiny_store.path, "--targets", tiny_targets, "--out", tmp_path / "picks"]
    cases = [
        (["--method", "lesser", "--top", "5%"], f"There is no method 'lesser'; choose among {', '.join(METHODS)}."),
        (
            ["--format", "xml", "--top", "5%"],
            "There is no export format 'xml': choose one of messages, prompt-completion",
        ),
        (
            ["--top", "some"],
            "'some' is not a budget; use a share (5%), rows (200) or tokens (50000tokens).",
        ),
        (["--top", "0%"], "'0%' is not a budget"),
    ]
    for flags, message in cases:
        refused = gradsift(*select, *flags)
        assert refused.code == 2
        assert refused.error.startswith(message)
    assert not (tmp_path / "picks").exists()


# -- stores


def test_not_a_store(tmp_path: Path, tiny_targets: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", tmp_path / "nowhere", tiny_targets):
        for command in (["inspect"], ["verify"], ["score", "--targets", tiny_targets, "--out", tmp_path / "x.parquet"]):
            refused = gradsift(*command, path)
            assert refused.code == 1
            assert refused.error.startswith(f"{path}")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_store_of_another_projector(tiny_copy: Store, tiny_targets: Path, tiny_pool: Path, tiny_model: Path) -> None:
    checkpoints = tuple(c.model_copy(update={"projector": "old"}) for c in tiny_copy.manifest.checkpoints)
    Store(tiny_copy.path, tiny_copy.manifest.model_copy(update={"checkpoints": checkpoints})).save_manifest()
    before = contents(tiny_copy.path)
    refused = score(tiny_copy, tiny_targets)
    assert refused.code == 1
    assert "was built with projector old, but this version of gradsift makes " in refused.error
    refused = build(tiny_pool, tiny_model, tiny_copy.path)
    assert refused.code == 1
    assert "but this version of gradsift makes" in refused.error
    assert contents(tiny_copy.path) == before


@pytest.mark.parametrize("kind", ["adam", "sgd", "rds", "metrics"])
def test_a_shard_with_one_flipped_bit(
    tiny_copy: Store, tiny_store: Store, tiny_targets: Path, tiny_pool: Path, tiny_model: Path, kind: str
) -> None:
    path = tiny_copy.shard_path(kind, 1, 2)
    flip(path, 60 if kind == "metrics" else -1)
    check = gradsift("verify", tiny_copy.path)
    assert check.code == 1
    assert str(path) in check.out
    refused = score(
        tiny_copy, tiny_targets, "--method", "less", "--method", "rds", "--gradient", "sgd" if kind == "sgd" else "adam"
    )
    assert refused.code == 1
    assert refused.error.startswith(f"{path} is damaged")
    path.unlink()
    before = shard_files(tiny_copy.path)
    repaired = build(tiny_pool, tiny_model, tiny_copy.path)
    assert repaired.code == 0, repaired.err
    assert before.items() <= shard_files(tiny_copy.path).items()
    assert_same_files(tiny_copy.path, tiny_store.path)
    assert gradsift("verify", tiny_copy.path).code == 0


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "pool.parquet", "checkpoints/epoch-1/moments.safetensors", "checkpoints/epoch-2/state.json"],
)
def test_another_damaged_file(
    tiny_copy: Store, tiny_targets: Path, tiny_pool: Path, tiny_model: Path, name: str
) -> None:
    (tiny_copy.path / name).write_bytes((tiny_copy.path / name).read_bytes()[:-40])
    tiny_copy.shard_path("adam", 0, 0).unlink()  # so that the build has something to do
    tiny_copy.shard_path("adam", 1, 0).unlink()
    before = contents(tiny_copy.path)
    for refused in (build(tiny_pool, tiny_model, tiny_copy.path), score(tiny_copy, tiny_targets)):
        assert refused.code == 1
    assert name in build(tiny_pool, tiny_model, tiny_copy.path).error
    check = gradsift("verify", tiny_copy.path)
    assert check.code == 1
    assert name in check.out + check.err
    after = contents(tiny_copy.path)
    assert {file: after[file] for file in before} == before


# -- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A separate file system; `resize` makes room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(disk)], check=True)


def test_a_full_disk_and_then_room(small_disk: Path, tiny_pool: Path, tiny_model: Path, tiny_store: Store) -> None:
    store = small_disk / "store"
    stopped_at, whole = set(), {}
    for size in (12, 24, 40, 64, 96, 128, 160, 200, 240, 280, 320, 360, 400):
        resize(small_disk, f"{size}k")
        tried = build(tiny_pool, tiny_model, store)
        if tried.code == 0:
            break
        assert tried.code == 1
        assert "The disk is full" in tried.error or "The disk of" in tried.error
        shards = shard_files(store)
        assert whole.items() <= shards.items()
        whole = shards
        stopped_at.add(tuple(sorted(path.name for path in store.iterdir())))
    assert len(stopped_at) > 1, "the disk was never full in the middle of something"
    resize(small_disk, "4m")
    assert build(tiny_pool, tiny_model, store).code == 0
    assert whole.items() <= shard_files(store).items()
    assert_same_files(store, tiny_store.path)


@pytest.mark.parametrize("room", [200, 3000, 9000, 20_000])
def test_files_that_may_not_grow(
    tiny_pool: Path, tiny_model: Path, tiny_store: Store, tmp_path: Path, room: int
) -> None:
    """The same with a limit on every file's size, which does not require mounting."""
    refused = build(tiny_pool, tiny_model, tmp_path / "store", file_size=room)
    assert refused.code == 1
    assert refused.error.startswith("The disk is full")
    assert build(tiny_pool, tiny_model, tmp_path / "store").code == 0
    assert_same_files(tmp_path / "store", tiny_store.path)


def test_shards_that_do_not_fit(tiny_copy: Store, tiny_store: Store, tiny_pool: Path, tiny_model: Path) -> None:
    assert tiny_copy.shard_path("adam", 0, 0).stat().st_size > 2000
    for path in shard_files(tiny_copy.path):
        if "epoch-2" in path.parts:
            path.unlink()
    before = shard_files(tiny_copy.path)
    refused = build(tiny_pool, tiny_model, tiny_copy.path, file_size=2000)
    assert (refused.code, refused.error[:16]) == (1, "The disk is full")
    assert before.items() <= shard_files(tiny_copy.path).items()
    assert not list(tiny_copy.path.rglob(".tmp-*"))
    assert build(tiny_pool, tiny_model, tiny_copy.path).code == 0
    assert_same_files(tiny_copy.path, tiny_store.path)


def test_an_export_on_a_full_disk(tiny_copy: Store, tiny_targets: Path, tmp_path: Path) -> None:
    select = ["select", tiny_copy.path, "--targets", tiny_targets, "--top", "100%", "--out", tmp_path / "picks"]
    refused = gradsift(*select, "--method", "random", file_size=500)
    assert refused.code == 1
    assert not (tmp_path / "picks" / "manifest.json").exists()
    assert gradsift(*select, "--method", "random").code == 0
