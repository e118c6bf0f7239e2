"""What only a GPU can show: the same numbers as on a CPU, the same bytes in two builds, bf16 base weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from gradsift.builder.build import build
from gradsift.config import BuildConfig
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.evaluation.heldout import read_heldout
from gradsift.evaluation.plan import EvaluationSet
from gradsift.evaluation.run import evaluate
from gradsift.gradients.projection import SparseProjector
from gradsift.selection.score import score

pytestmark = pytest.mark.gpu


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": f"It is {n * n}. " * n},
            ]
        }
        for n in range(1, 25)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def _config(model: Path, dtype: str) -> BuildConfig:
    return BuildConfig(
        model=str(model), epochs=1, batch_size=4, lr=1e-3, lora_rank=4, dim=256, warmup_fraction=0.5, dtype=dtype
    )


def _features(store: Store) -> torch.Tensor:
    return torch.cat([rows for shard in store.shards("adam", 0) for _, rows in shard.blocks()])


def test_sketch_equals_the_cpus_and_repeats_its_bytes() -> None:
    shapes = {"layer.lora_A.weight": (16, 576), "layer.lora_B.weight": (192, 16)}
    gradients = {name: torch.randn(3, a * b) for name, (a, b) in shapes.items()}

    def project(device: str) -> torch.Tensor:
        out = torch.zeros(3, 1024, device=device)
        projector = SparseProjector(0, 1, 1024, shapes, torch.device(device))
        for name, values in gradients.items():
            projector.add(name, values.to(device), out)
        return out.cpu()

    assert torch.equal(project("cuda"), project("cuda"))
    torch.testing.assert_close(project("cuda"), project("cpu"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])  # attention has different kernels for each
def test_two_builds_give_the_same_bytes(tiny_model: Path, pool: Path, tmp_path: Path, dtype: str) -> None:
    stores = [build([pool], tmp_path / name, _config(tiny_model, dtype)) for name in ("a", "b")]
    assert stores[0].manifest.files == stores[1].manifest.files  # checkpoints and moments among them
    assert torch.equal(_features(stores[0]), _features(stores[1]))
    assert stores[0].metrics().equals(stores[1].metrics())


def test_a_store_finished_on_the_cpu_has_the_same_features(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tiny_model, "fp32")
    store = build([pool], tmp_path / "gpu", config)
    shutil.copytree(store.path, tmp_path / "cpu", ignore=shutil.ignore_patterns("features", "representations"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # `default_device` calls it
    other = build([pool], tmp_path / "cpu", config)
    assert (_features(store) * _features(other)).sum(1).min() > 0.999


def test_targets_are_scored(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    store = build([pool], tmp_path / "store", _config(tiny_model, "auto"))
    table = score(store, read_targets(pool).rows[:3], ["less", "rds"])
    assert len(table) == 2 * store.manifest.usable
    assert table["score"].abs().max() <= 1 + 1e-3


def test_bf16_base_weights_stay_close_to_fp32(tiny_model: Path, pool: Path, tmp_path: Path) -> None:
    full = build([pool], tmp_path / "fp32", _config(tiny_model, "fp32"))
    half = build([pool], tmp_path / "bf16", _config(tiny_model, "auto"))
    assert half.manifest.dtype == "bfloat16"
    cosines = (_features(full) * _features(half)).sum(1)
    assert cosines.mean() > 0.95


def test_an_evaluation_measures_what_it_measures_on_the_cpu(
    tiny_model: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training, losses and written answers; only dropout draws different numbers there."""
    config = _config(tiny_model, "fp32").model_copy(update={"lora_dropout": 0.0})
    store = build([pool], tmp_path / "store", config)
    (tmp_path / "held-out.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Say {n}.", "completion": f"It is {n * n}."}) + "\n" for n in range(30, 34))
    )
    one = EvaluationSet("squares", read_targets(pool).rows[:3], read_heldout(tmp_path / "held-out.jsonl"))
    options = {"methods": ["less"], "budget": "6", "seeds": 1}
    on_gpu = evaluate([store.path], [one], tmp_path / "gpu.json", **options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # `default_device` calls it
    pool_files = {"pool": [pool]}  # the first report's picks, read by id: a GPU may order ties differently
    on_gpu.model_copy(update={"runs": []}).save(tmp_path / "cpu.json")
    on_cpu = evaluate([store.path], [one], tmp_path / "cpu.json", **options, **pool_files)
    assert [run.key for run in on_gpu.runs] == [run.key for run in on_cpu.runs]
    for ours, cpus in zip(on_gpu.runs, on_cpu.runs, strict=True):
        assert ours.loss_by_epoch == pytest.approx(cpus.loss_by_epoch, rel=1e-3)
        assert ours.score == pytest.approx(cpus.score, abs=0.3)
