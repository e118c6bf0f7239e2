"""The warmup's subset and rates; a killed run ends with the bytes of an uninterrupted one (method, 7.7, 7.9, 7.12)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from reference import random_rows, small_config

from gradsift.model import load
from gradsift.model.lora import attach_lora
from gradsift.runtime import atomic
from gradsift.runtime.progress import Progress
from gradsift.training import trainer
from gradsift.training.checkpoint import Checkpoint, canonical
from gradsift.training.schedule import choose_rows, learning_rate, short_epoch_note, steps_per_epoch
from gradsift.training.warmup import Warmup

ROWS = random_rows(300, [9, 30, 14, 22, 5, 17, 28, 11, 8, 26], seed=4)
CPU = torch.device("cpu")


def config_of(model: Path, **changes):
    return small_config(model, **{"epochs": 3, "batch_size": 4, "lora_dropout": 0.1, **changes})


def train(config, store: Path, rows=ROWS, progress: Progress | None = None):
    """One warmup run into `store` with a freshly loaded model, as in a build; returns the trained model."""
    (store / "warmup").mkdir(parents=True, exist_ok=True)
    model = attach_lora(load.load_model(config.model, torch.float32, CPU).model, config)
    Warmup(config, store / "warmup", store / "checkpoints", progress or Progress(quiet=True)).run(model, rows)
    return model


def everything(store: Path) -> dict[str, bytes]:
    """The contents of every file in a folder, by path."""
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def unbroken(tiny_model, tmp_path_factory):
    """The warmup's folder after an uninterrupted run."""
    store = tmp_path_factory.mktemp("unbroken")
    train(config_of(tiny_model), store)
    return store


class TestSubset:
    @pytest.mark.parametrize(
        ("usable", "fraction", "expected"), [(200, 0.05, 10), (199, 0.05, 9), (3, 0.05, 1), (7, 1, 7)]
    )
    def test_size(self, usable, fraction, expected):
        assert len(choose_rows(usable, fraction, 0)) == expected

    def test_seed_decides(self):
        first = choose_rows(1000, 0.05, 0)
        assert choose_rows(1000, 0.05, 0) == first
        assert len({tuple(choose_rows(1000, 0.05, seed)) for seed in range(20)}) == 20
        assert first == sorted(set(first))
        assert 0 <= first[0] <= first[-1] < 1000

    def test_every_row_has_the_same_chance(self):
        counts = torch.zeros(40)
        for seed in range(1000):
            counts[choose_rows(40, 0.25, seed)] += 1
        assert (counts - 250).abs().max() < 5 * (1000 * 0.25 * 0.75) ** 0.5


class TestLearningRate:
    def test_no_step_has_rate_zero(self):
        for steps in range(1, 201):
            rates = [learning_rate(step, steps) for step in range(steps)]
            assert min(rates) > 0, steps
            assert max(rates) == 1.0, steps

    @pytest.mark.parametrize("steps", [40, 100, 200])
    def test_rises_then_falls(self, steps):
        rates = [learning_rate(step, steps) for step in range(steps)]
        peak = rates.index(1.0)
        assert peak == round(0.03 * steps)
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[(steps + peak) // 2] == pytest.approx(0.5, abs=0.05)  # halfway down the cosine
        assert rates[-1] < 0.01

    def test_short_epochs_are_warned_about_with_a_batch_size_that_helps(self):
        assert short_epoch_note(1000, 100) is None
        assert short_epoch_note(10, 1) is None
        for rows, batch in ((48, 8), (100, 128), (39, 32), (11, 2)):
            note = short_epoch_note(rows, batch)
            size = int(note.split("--batch-size ")[1].split()[0])
            assert f"only {steps_per_epoch(rows, batch)} optimizer steps" in note
            assert steps_per_epoch(rows, size) >= 10
            assert f"would give {steps_per_epoch(rows, size)}" in note
        assert "--warmup-fraction" in short_epoch_note(5, 1)


class TestRun:
    def test_one_checkpoint_an_epoch_with_the_mean_of_the_rates_really_used(self, tiny_model, tmp_path, monkeypatch):
        used = []
        step = torch.optim.AdamW.step

        def spy(self, *args, **kwargs):
            used.append(self.param_groups[0]["lr"])
            return step(self, *args, **kwargs)

        monkeypatch.setattr(torch.optim.AdamW, "step", spy)
        train(config_of(tiny_model), tmp_path)
        assert len(used) == 9  # 3 epochs of 3 steps: 10 rows in batches of 4
        assert min(used) > 0
        for epoch in (1, 2, 3):
            checkpoint = Checkpoint.load(tmp_path / "checkpoints" / f"epoch-{epoch}")
            assert checkpoint.step == 3 * epoch
            assert checkpoint.mean_lr == pytest.approx(sum(used[3 * epoch - 3 : 3 * epoch]) / 3, rel=1e-12)
            assert (checkpoint.betas, checkpoint.eps) == ((0.9, 0.999), 1e-8)
        log = json.loads((tmp_path / "warmup" / "log.json").read_text())
        assert [entry["learning_rate"] for entry in log] == used
        assert [entry["step"] for entry in log] == list(range(1, 10))
        assert [path.name for path in (tmp_path / "warmup").iterdir()] == ["log.json"]

    def test_moments_are_the_optimizers_by_name(self, tiny_model, tmp_path, monkeypatch):
        made = []
        init = torch.optim.AdamW.__init__

        def spy(self, *args, **kwargs):
            init(self, *args, **kwargs)
            made.append(self)

        monkeypatch.setattr(torch.optim.AdamW, "__init__", spy)
        model = train(config_of(tiny_model), tmp_path)
        checkpoint = Checkpoint.load(tmp_path / "checkpoints" / "epoch-3")
        named = {canonical(name): p for name, p in model.named_parameters() if "lora_" in name}
        assert set(checkpoint.moments) == set(checkpoint.adapter) == set(named)
        for name, parameter in named.items():
            state = made[0].state[parameter]
            assert torch.equal(checkpoint.moments[name][0], state["exp_avg"])
            assert torch.equal(checkpoint.moments[name][1], state["exp_avg_sq"])
            assert torch.equal(checkpoint.adapter[name], parameter.detach())
            assert checkpoint.moments[name][1].sum() > 0

    def test_learns(self, tiny_model, tmp_path):
        train(config_of(tiny_model, epochs=8, lr=2e-2, lora_dropout=0.0), tmp_path, ROWS[:4])
        losses = [entry["loss"] for entry in json.loads((tmp_path / "warmup" / "log.json").read_text())]
        assert losses[-1] < 0.9 * losses[0]

    def test_every_epoch_sees_every_row_once_in_another_order(self):
        sampler = trainer._EpochOrder(10, seed=3)
        orders = []
        for epoch in range(4):
            sampler.set_epoch(epoch)
            orders.append(list(sampler))
            assert list(sampler) == orders[-1]
            assert sorted(orders[-1]) == list(range(10))
        assert len(set(map(tuple, orders))) == 4
        assert list(trainer._EpochOrder(10, seed=4)) != orders[0]

    def test_the_trainer_uses_that_order(self, tiny_model, tmp_path, monkeypatch):
        seen = []
        monkeypatch.setattr(trainer._Examples, "__getitem__", lambda self, at: seen.append(at) or self.examples[at])
        train(config_of(tiny_model, epochs=2), tmp_path)
        sampler = trainer._EpochOrder(10, seed=0)
        expected = list(sampler)
        sampler.set_epoch(1)
        assert seen == expected + list(sampler)

    def test_pieces_change_memory_not_the_result(self, tiny_model, tmp_path):
        config = config_of(tiny_model, epochs=1, lora_dropout=0.0)
        train(config, tmp_path / "whole")
        train(config.model_copy(update={"token_budget": 30}), tmp_path / "parts")
        whole, parts = (Checkpoint.load(tmp_path / name / "checkpoints" / "epoch-1") for name in ("whole", "parts"))
        for name, (m, v) in whole.moments.items():
            torch.testing.assert_close(parts.moments[name][0], m, rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(parts.moments[name][1], v, rtol=1e-3, atol=1e-8)

    def test_a_piece_that_does_not_fit_begins_the_step_again(self, tiny_model, tmp_path, monkeypatch):
        """Memory runs out at a step's second piece: the first piece's gradient is not added twice."""
        config = config_of(tiny_model, epochs=1, batch_size=10, lora_dropout=0.0, token_budget=60)
        train(config, tmp_path / "whole")
        real, sizes = trainer.supervised_losses, []

        def tight(model, piece):
            sizes.append(len(piece))
            if len(sizes) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(model, piece)

        monkeypatch.setattr(trainer, "supervised_losses", tight)
        train(config, tmp_path / "parts")
        assert sizes == [2, 2, 1, 1, 1, 1, 1, 2, 3]  # 60 tokens, then 30
        whole, parts = (Checkpoint.load(tmp_path / name / "checkpoints" / "epoch-1") for name in ("whole", "parts"))
        for name, (m, v) in whole.moments.items():
            torch.testing.assert_close(parts.moments[name][0], m, rtol=1e-3, atol=1e-6)
            torch.testing.assert_close(parts.moments[name][1], v, rtol=1e-3, atol=1e-8)

    def test_rows_that_do_not_fit_alone_are_an_error(self, tiny_model, tmp_path, monkeypatch):
        def full(model, piece):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(trainer, "supervised_losses", full)
        with pytest.raises(torch.OutOfMemoryError):
            train(config_of(tiny_model, epochs=1), tmp_path)

    @pytest.mark.parametrize("token_budget", [0, 30])
    def test_a_step_descends_the_mean_loss_of_all_supervised_tokens(self, tiny_model, tmp_path, token_budget):
        """Against the model's own loss, one row at a time, and torch's AdamW."""
        config = config_of(tiny_model, epochs=1, batch_size=10, lora_dropout=0.0, token_budget=token_budget)
        trained = train(config, tmp_path)
        model = attach_lora(load.load_model(config.model, torch.float32, CPU).model, config).eval()
        parameters = {canonical(name): p for name, p in model.named_parameters() if p.requires_grad}
        total = sum(row.n_answer for row in ROWS)
        for row in ROWS:
            ids = torch.tensor([row.ids])
            labels = ids.masked_fill(~torch.tensor([row.supervised]), -100)
            (model(input_ids=ids, labels=labels).loss * row.n_answer / total).backward()
        optimizer = torch.optim.AdamW(parameters.values(), config.lr, weight_decay=0)
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        made = {canonical(name): p for name, p in trained.named_parameters() if p.requires_grad}
        checkpoint = Checkpoint.load(tmp_path / "checkpoints" / "epoch-1")
        for name, parameter in parameters.items():
            torch.testing.assert_close(made[name], parameter, rtol=1e-4, atol=1e-6)
            m, v = optimizer.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg_sq"]
            torch.testing.assert_close(checkpoint.moments[name][0], m, rtol=1e-3, atol=1e-7)
            torch.testing.assert_close(checkpoint.moments[name][1], v, rtol=1e-3, atol=1e-10)
        log = json.loads((tmp_path / "warmup" / "log.json").read_text())
        assert log[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-4)

    def test_seed_changes_weights_and_training(self, tiny_model, tmp_path, unbroken):
        train(config_of(tiny_model, seed=1), tmp_path)
        name = "checkpoints/epoch-1/adapter_model.safetensors"
        assert everything(tmp_path)[name] != everything(unbroken)[name]

    def test_same_seed_same_bytes(self, tiny_model, tmp_path, unbroken):
        torch.manual_seed(99)  # earlier random draws must not matter
        train(config_of(tiny_model), tmp_path)
        assert everything(tmp_path) == everything(unbroken)

    def test_random_numbers_drawn_in_between_do_not_matter(self, tiny_model, tmp_path, unbroken, monkeypatch):
        """Dropout depends only on seed and step."""
        progress = Progress(quiet=True)
        monkeypatch.setattr(progress, "advance", lambda units=1: torch.rand(3))
        train(config_of(tiny_model), tmp_path, progress=progress)
        assert everything(tmp_path) == everything(unbroken)


class Power(Exception):
    """The power is cut."""


class TestResume:
    """Wherever the run stops, the second run ends with the bytes of an uninterrupted one."""

    @pytest.mark.parametrize("step", [1, 3, 4, 5, 8])
    def test_stopped_in_the_middle(self, tiny_model, tmp_path, unbroken, step, monkeypatch):
        cut = Progress(quiet=True)

        def advance(units=1):
            cut.status.done += units
            if cut.status.done == step:
                raise Power

        monkeypatch.setattr(cut, "advance", advance)
        with pytest.raises(Power):
            train(config_of(tiny_model), tmp_path, progress=cut)
        first = self._modified(tmp_path)
        train(config_of(tiny_model), tmp_path)
        assert everything(tmp_path) == everything(unbroken)
        assert {path: when for path, when in self._modified(tmp_path).items() if path in first} == first

    @pytest.mark.parametrize("epoch", [1, 2, 3])
    def test_stopped_between_the_trainers_state_and_ours(self, tiny_model, tmp_path, unbroken, epoch, monkeypatch):
        """In addition, the Trainer's newest state is half-written."""
        save = Checkpoint.save

        def cut(self, folder):
            if folder.name == f"epoch-{epoch}":
                raise Power
            save(self, folder)

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", cut)
            with pytest.raises(Power):
                train(config_of(tiny_model), tmp_path)
        newest = tmp_path / "warmup" / "trainer" / f"checkpoint-{3 * epoch}"
        (newest / "optimizer.pt").write_bytes((newest / "optimizer.pt").read_bytes()[:100])
        (newest / "trainer_state.json").unlink()
        train(config_of(tiny_model), tmp_path)
        assert everything(tmp_path) == everything(unbroken)

    def test_stopped_before_the_log(self, tiny_model, tmp_path, unbroken, monkeypatch):
        write = atomic.write_json

        def cut(path, value):
            if path.name == "log.json":
                raise Power
            write(path, value)

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "write_json", cut)
            with pytest.raises(Power):
                train(config_of(tiny_model), tmp_path)
        train(config_of(tiny_model), tmp_path)
        assert everything(tmp_path) == everything(unbroken)

    def test_killed_for_real(self, tiny_model, tmp_path, unbroken):
        script = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1])!r}]
import test_warmup
from gradsift.runtime.progress import Progress
class Killed(Progress):
    def advance(self, units=1):
        super().advance(units)
        if self.status.done == 5:
            os.kill(os.getpid(), signal.SIGKILL)
config = test_warmup.config_of({str(tiny_model)!r})
test_warmup.train(config, test_warmup.Path({str(tmp_path)!r}), progress=Killed(quiet=True))
"""
        threads = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        killed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=threads)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch-1"]
        train(config_of(tiny_model), tmp_path)
        assert everything(tmp_path) == everything(unbroken)

    @staticmethod
    def _modified(store: Path) -> dict[str, int]:
        """The modification time of each file of finished checkpoints, which must stay untouched."""
        files = (store / "checkpoints").rglob("*")
        return {str(path.relative_to(store)): path.stat().st_mtime_ns for path in files if path.is_file()}
