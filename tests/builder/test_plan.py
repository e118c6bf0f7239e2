"""A plan's counts equal the build's, and its estimates add up."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import gradsift

from gradsift.builder import survey, timing
from gradsift.builder.ingest import NothingUsableError
from gradsift.builder.plan import PLAN, Plan, describe, plan, record
from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded
from gradsift.datastore.shards import read_tensors
from gradsift.datastore.store import Store
from gradsift.model.batches import PER_BATCH
from gradsift.model.loss import supervised_losses
from gradsift.runtime.progress import Progress


@pytest.fixture(scope="module")
def planned(tiny_pool: Path, tiny_config: BuildConfig) -> Plan:
    return plan([tiny_pool], tiny_config, workers=4)


def test_counts_are_those_of_the_build(planned: Plan, tiny_store: Store) -> None:
    manifest, pool = tiny_store.manifest, tiny_store.pool()
    usable = pool[pool["status"] == "usable"]
    assert planned.exact
    assert (planned.rows, planned.usable, planned.excluded) == (manifest.rows, manifest.usable, manifest.excluded)
    assert planned.prompt_tokens == usable["n_prompt_tokens"].sum()
    assert planned.answer_tokens == usable["n_answer_tokens"].sum()
    result = [(s.source, s.rows_in_file, s.rows, s.usable, s.excluded, s.truncated) for s in planned.sources]
    assert result == [tuple(source.model_dump().values()) for source in manifest.sources]
    assert planned.pool_bytes == (tiny_store.path / "pool.parquet").stat().st_size
    assert planned.checkpoints == len(manifest.checkpoints)


def test_warmup_steps_and_padding_are_those_of_the_build(planned: Plan, tiny_store: Store) -> None:
    config, pool = tiny_store.manifest.config, tiny_store.pool()
    assert planned.warmup is not None
    assert planned.warmup.rows == len(json.loads((tiny_store.path / "warmup" / "rows.json").read_text()))
    assert planned.warmup.steps_per_epoch * config.epochs == len(tiny_store.loss_curve())
    lengths = (pool["n_prompt_tokens"] + pool["n_answer_tokens"]).loc[tiny_store.rows].tolist()
    padded = 0
    for start, stop in tiny_store.shard_ranges:  # 8 rows of at most 96 tokens: any number of them fits into a batch
        rows, ways = sorted(lengths[start:stop], reverse=True), []
        for cuts in itertools.product([False, True], repeat=len(rows) - 1):
            firsts = [0, *(at for at, cut in enumerate(cuts, start=1) if cut)]
            sizes = [b - a for a, b in itertools.pairwise([*firsts, len(rows)])]
            tokens = sum(rows[first] * size for first, size in zip(firsts, sizes, strict=True))
            ways.append((tokens + PER_BATCH * len(firsts), tokens))
        padded += min(ways)[1]
    assert planned.padded_tokens == padded


def test_disk_is_what_the_store_takes_up(planned: Plan, tiny_store: Store) -> None:
    def payload(folder: str) -> int:
        paths = (p for p in (tiny_store.path / folder).rglob("*.safetensors") if p.parent.name != "base")
        return sum(tensor.nbytes for path in paths for tensor in read_tensors(path)[0].values())

    assert planned.estimate is not None
    parts = planned.estimate.bytes
    assert planned.feature_bytes["int8"] == parts["features"] == payload("features")
    assert parts["representations"] == payload("representations")
    on_disk = sum(path.stat().st_size for path in (tiny_store.path / "checkpoints").rglob("*.safetensors"))
    assert parts["checkpoints"] == pytest.approx(on_disk, rel=0.25)  # headers matter with such a small model
    assert planned.estimate.total_bytes == sum(parts.values())
    per_row = {"int8": 256 + 8, "fp16": 512 + 8, "bit": 32 + 8}
    assert planned.feature_bytes == {dtype: 40 * 2 * 2 * size for dtype, size in per_row.items()}


def test_time_adds_up_and_only_the_features_are_shared_by_workers(planned: Plan) -> None:
    e = planned.estimate
    assert e is not None
    assert e.total_seconds == pytest.approx(sum(e.seconds.values()), abs=0.2)
    assert e.workers_total_seconds == pytest.approx(e.total_seconds - 0.75 * e.seconds["features"], abs=0.2)
    per_pass = planned.padded_tokens / e.features_tokens_per_s
    assert e.seconds["features"] >= 2 * per_pass - 0.1
    assert e.memory_bytes >= e.measured_memory_bytes > 1e8
    assert e.lora_parameters == 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16))  # layers x rank x (q and o, k and v)
    assert all(part in describe(planned) for part in ("42 = 40 usable + 2 excluded", "on 4", "bit 0.0 MB"))


def test_of_a_large_source_a_sample_is_scaled_up_with_a_note(
    tiny_pool: Path, tiny_config: BuildConfig, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "COUNTED", 13)
    result = plan([tiny_pool], tiny_config)
    assert (result.exact, result.tokenized_rows, result.rows) == (False, 26, 42)
    assert [s.rows for s in result.sources] == [26, 16]
    assert result.usable + sum(result.excluded.values()) == 42
    assert all(s.usable + s.excluded == s.rows for s in result.sources)
    assert result.usable == sum(s.usable for s in result.sources)
    assert result.prompt_tokens + result.answer_tokens == pytest.approx(
        planned.prompt_tokens + planned.answer_tokens, rel=0.3
    )
    assert any(note.startswith("26 of 42 rows were tokenized") for note in result.notes)


def test_as_json_the_rows_add_up(tiny_pool: Path, tiny_model: Path, tiny_store: Store) -> None:
    flags = ("--max-length", 96, "--warmup-fraction", 0.5, "--epochs", 2, "--batch-size", 4, "--lora-rank", 4)
    shown = json.loads(gradsift("plan", tiny_pool, "--model", tiny_model, *flags, "--dim", 256, "--json").out)
    assert shown["rows"] == 42 == shown["usable"] + sum(shown["excluded"].values())
    assert shown["excluded"] == tiny_store.manifest.excluded
    assert set(shown["excluded"]) == {reason for reason in tiny_store.pool()["reason"] if reason}
    assert shown["unused"] == {}


@pytest.mark.parametrize(
    ("counts", "total", "whole"),
    [
        ({"a": 3.0, "b": 1.0}, 4, {"a": 3, "b": 1}),
        ({"a": 1.4, "b": 1.4, "c": 1.4}, 4, {"a": 2, "b": 1, "c": 1}),
        ({"a": 2.5, "b": 7.6}, 9, {"b": 7, "a": 2}),
        ({"a": 100 / 3 * 3}, 100, {"a": 100}),
        ({}, 0, {}),
    ],
)
def test_scaled_counts_add_up_in_whole_numbers(counts: dict, total: int, whole: dict) -> None:
    assert survey._whole(counts, total) == whole


def test_given_checkpoints_need_no_warmup(tiny_pool: Path, tiny_config: BuildConfig, tiny_store: Store) -> None:
    given = tuple(str(tiny_store.path / "checkpoints" / name) for name in tiny_store.epochs)
    result = plan([tiny_pool], tiny_config.model_copy(update={"checkpoints": given, "limit_per_source": 5}))
    assert result.estimate is not None
    assert (result.warmup, result.checkpoints, result.rows) == (None, 2, 10)
    assert (result.estimate.seconds["warmup"], result.estimate.warmup_tokens_per_s) == (0, None)


def test_a_job_shows_the_counts_before_the_estimate(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").mkdir()
    progress = Progress(tmp_path, quiet=True)
    seen = []
    original = progress.stage

    def stage(name: str, *about, **more) -> None:
        if name == "load":
            seen.append(json.loads((tmp_path / "job" / PLAN).read_text()))
        original(name, *about, **more)

    monkeypatch.setattr(progress, "stage", stage)
    result = plan([tiny_pool], tiny_config, progress=progress)
    assert [(early["usable"], early["estimate"]) for early in seen] == [(40, None)]
    assert json.loads((tmp_path / "job" / PLAN).read_text()) == json.loads(json.dumps(record(result)))


def test_the_command_prints_json_and_writes_nothing(tiny_pool: Path, tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--max-length", 9000, "--lora-rank", 4, "--dim", 64, "--workers", 2]
    done = gradsift("plan", tiny_pool, *flags, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert (result["usable"], result["estimate"]["workers"]) == (40, 2)
    assert "--max-length is lowered to 512, the model's window." in result["notes"]
    assert any("optimizer steps per epoch" in note for note in result["notes"])
    assert list(tmp_path.iterdir()) == []


def test_a_pool_without_a_usable_row_is_refused(tiny_config: BuildConfig, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"messages": [{"role": "user", "content": "?"}]}\n{\n')
    with pytest.raises(NothingUsableError, match="None of the 2 rows can be used"):
        plan([tmp_path / "bad.jsonl"], tiny_config)


def test_a_training_step_that_does_not_fit_is_timed_in_halves(
    tiny_pool: Path, tiny_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the warmup itself does."""
    sizes: list[int] = []

    def small_card(peft: Any, rows: Sequence[Encoded]) -> torch.Tensor:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return supervised_losses(peft, rows)

    monkeypatch.setattr(timing, "supervised_losses", small_card)
    estimate = plan([tiny_pool], tiny_config).estimate
    assert estimate is not None
    assert estimate.seconds["warmup"] > 0
    assert max(sizes) > 1
