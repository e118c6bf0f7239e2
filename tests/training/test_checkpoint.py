"""Adam's moments and the mean rate, from our files and from a Trainer's (method, sections 7.7 and 7.9)."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import ATTENTION, random_rows, small_config, with_lora
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from gradsift.builder.build import build
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import Checkpoint, CheckpointError, canonical, read_trainer_checkpoint


def checkpoint(seed: int = 0) -> Checkpoint:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"base_model.model.b.lora_A.weight": (4, 6), "base_model.model.a.lora_B.weight": (5, 4)}

    def tensors() -> dict[str, torch.Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}

    m, v = tensors(), tensors()
    moments = {name: (m[name], v[name].square() * 1e-13) for name in shapes}
    return Checkpoint(tensors(), {"peft_type": "LORA", "r": 4}, moments, 17, (0.85, 0.995), 1e-7, 1.25e-5)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestOwnFiles:
    def test_round_trip_is_exact(self, tmp_path):
        kept = checkpoint()
        kept.save(tmp_path / "epoch-1")
        result = Checkpoint.load(tmp_path / "epoch-1")
        assert (result.step, result.betas, result.eps, result.mean_lr) == (17, (0.85, 0.995), 1e-7, 1.25e-5)
        assert result.adapter_config == kept.adapter_config
        assert set(result.adapter) == set(result.moments) == set(kept.moments)
        for name in kept.adapter:
            assert torch.equal(result.adapter[name], kept.adapter[name])
            assert all(torch.equal(a, b) for a, b in zip(result.moments[name], kept.moments[name], strict=True))

    def test_equal_checkpoints_are_equal_bytes(self, tmp_path):
        one = checkpoint()
        names = list(reversed(one.adapter))
        two = Checkpoint(
            {n: one.adapter[n].clone() for n in names},
            dict(reversed(one.adapter_config.items())),
            {n: one.moments[n] for n in names},
            *(one.step, one.betas, one.eps, one.mean_lr),
        )
        one.save(tmp_path / "one")
        two.save(tmp_path / "two")
        Checkpoint.load(tmp_path / "one").save(tmp_path / "three")
        assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")

    def test_saving_replaces_the_whole_folder(self, tmp_path):
        checkpoint(1).save(tmp_path / "epoch-1")
        (tmp_path / "epoch-1" / "left.txt").write_text("from before")
        checkpoint(2).save(tmp_path / "epoch-1")
        checkpoint(2).save(tmp_path / "fresh")
        assert content(tmp_path / "epoch-1") == content(tmp_path / "fresh")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-1", "fresh"]

    def test_without_moments(self, tmp_path):
        kept = checkpoint()
        Checkpoint(kept.adapter, {}, {}, 3, (0.9, 0.999), 1e-8, 1e-5).save(tmp_path / "c")
        assert Checkpoint.load(tmp_path / "c").moments == {}

    @pytest.mark.parametrize(
        "name", ["adapter_model.safetensors", "adapter_config.json", "moments.safetensors", "state.json"]
    )
    def test_a_missing_file_is_named(self, tmp_path, name):
        checkpoint().save(tmp_path / "c")
        (tmp_path / "c" / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            Checkpoint.load(tmp_path / "c")

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "moments.safetensors", "state.json"])
    def test_a_damaged_file_is_an_error_in_words(self, tmp_path, name):
        checkpoint().save(tmp_path / "c")
        (tmp_path / "c" / name).write_bytes(b"{}")
        with pytest.raises(CheckpointError, match=r"cannot be read|incomplete or damaged"):
            Checkpoint.load(tmp_path / "c")

    def test_weights_go_back_into_the_model(self, tmp_path, tiny_model):
        trained = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model), seed=5)
        weights = {canonical(name): p.detach() for name, p in trained.named_parameters() if "lora_" in name}
        config = {**trained.peft_config["default"].to_dict(), "target_modules": ATTENTION}
        Checkpoint(weights, config, {}, 1, (0.9, 0.999), 1e-8, 1.0).save(tmp_path / "c")
        fresh = attach_adapter(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "c")
        set_adapter(fresh, Checkpoint.load(tmp_path / "c").adapter)
        ids = torch.tensor([random_rows(300, [20])[0].ids])
        with torch.no_grad():
            torch.testing.assert_close(fresh.eval()(ids).logits, trained(ids).logits, rtol=0, atol=0)


class _Eval:
    def __reduce__(self):
        return eval, ("1",)


EVIL = pickle.dumps(_Eval(), 2)


class _Recorder(TrainerCallback):
    """Records what really happened: the rate of every step, and the optimizer's state by name at every save."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.states: dict[int, dict[str, dict[str, torch.Tensor]]] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.rates.append(kwargs["optimizer"].param_groups[0]["lr"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        inner = getattr(kwargs["optimizer"], "optimizer", kwargs["optimizer"])
        named = {canonical(n): p for n, p in kwargs["model"].named_parameters() if p.requires_grad}
        self.states[state.global_step] = {
            name: {key: torch.as_tensor(value).clone() for key, value in inner.state[p].items()}
            for name, p in named.items()
        }


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """A real Trainer run of 7 steps, saved at 3, 6 and 7: (folder, recorder, names in the model's order)."""
    folder = tmp_path_factory.mktemp("trainer")
    model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    recorder = _Recorder()
    data = [{"input_ids": row.ids, "labels": row.ids} for row in random_rows(300, [12] * 14)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=7,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=2,
        adam_beta1=0.88,
        adam_beta2=0.98,
        adam_epsilon=1e-6,
        weight_decay=0.01,
        logging_steps=1,
        save_steps=3,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[recorder]).train()
    return folder, recorder, list(PerExampleGradients(model).shapes)


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of checkpoint-6 that a test may damage, with the names."""
    shutil.copytree(trained[0] / "checkpoint-6", tmp_path / "checkpoint-6")
    return tmp_path / "checkpoint-6", trained[2]


class TestTrainersFiles:
    @pytest.mark.parametrize(("step", "before"), [(3, 0), (6, 3), (7, 6)])
    def test_moments_by_name(self, trained, step, before):
        folder, recorder, names = trained
        result = read_trainer_checkpoint(folder / f"checkpoint-{step}", before, names)
        assert (result.step, result.betas, result.eps) == (step, (0.88, 0.98), 1e-6)
        assert set(result.moments) == set(result.adapter) == set(recorder.states[step])
        for name, state in recorder.states[step].items():
            m, v = result.moments[name]
            assert torch.equal(m, state["exp_avg"]), name
            assert torch.equal(v, state["exp_avg_sq"]), name
            assert v.abs().sum() > 0

    @pytest.mark.parametrize(("step", "before"), [(3, 0), (6, 3), (7, 6), (7, 0)])
    def test_mean_rate_is_that_of_the_steps_really_taken(self, trained, step, before):
        folder, recorder, names = trained
        assert len(recorder.rates) == 7
        assert len(set(recorder.rates)) > 4
        expected = sum(recorder.rates[before:step]) / (step - before)
        assert read_trainer_checkpoint(folder / f"checkpoint-{step}", before, names).mean_lr == pytest.approx(expected)

    def test_becomes_one_of_ours(self, trained, tmp_path):
        folder, _, names = trained
        result = read_trainer_checkpoint(folder / "checkpoint-3", 0, names)
        result.save(tmp_path / "epoch-1")
        again = Checkpoint.load(tmp_path / "epoch-1")
        assert again.mean_lr == result.mean_lr
        assert all(torch.equal(again.moments[n][1], result.moments[n][1]) for n in result.moments)

    def test_without_optimizer_there_are_no_moments(self, copied):
        folder, names = copied
        (folder / "optimizer.pt").unlink()
        result = read_trainer_checkpoint(folder, 3, names)
        assert result.moments == {}
        assert result.step == 6

    @pytest.mark.parametrize("name", ["trainer_state.json", "adapter_model.safetensors", "adapter_config.json"])
    def test_a_missing_file_is_named(self, copied, name):
        folder, names = copied
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=name):
            read_trainer_checkpoint(folder, 3, names)

    @pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "trainer_state.json"])
    def test_a_damaged_file_is_an_error_in_words(self, copied, name):
        folder, names = copied
        (folder / name).write_bytes(b"[]" if name == "trainer_state.json" else b"half a")
        with pytest.raises(CheckpointError, match=r"cannot be read|no readable trainer_state"):
            read_trainer_checkpoint(folder, 3, names)

    def test_an_adapter_that_changes_the_base_weights_is_refused(self, copied):
        """PiSSA and similar methods move base weights into the adapter: attached a second time, the model differs."""
        folder, _ = copied
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "init_lora_weights": "pissa"}))
        with pytest.raises(load.ModelError, match="init_lora_weights='pissa', which changes the base model"):
            attach_adapter(torch.nn.Linear(1, 1), folder)

    def test_no_rate_logged_between_the_steps(self, copied):
        folder, names = copied
        with pytest.raises(CheckpointError, match="no learning rate between steps 6 and 6"):
            read_trainer_checkpoint(folder, 6, names)
        state = json.loads((folder / "trainer_state.json").read_text())
        state["log_history"] = [{"step": 6, "loss": 1.0}]
        (folder / "trainer_state.json").write_text(json.dumps(state))
        with pytest.raises(CheckpointError, match="logging_steps=1"):
            read_trainer_checkpoint(folder, 3, names)

    def test_another_number_of_parameters(self, copied):
        folder, names = copied
        self._spoil(folder, lambda saved: saved["param_groups"][0]["params"].pop())
        with pytest.raises(CheckpointError, match=f"covers {len(names) - 1} parameters, the adapter has {len(names)}"):
            read_trainer_checkpoint(folder, 3, names)

    def test_another_model(self, copied):
        folder, names = copied
        with pytest.raises(CheckpointError, match=r"not plain LoRA on linear layers \(base_model\..*lora_B\.weight\)"):
            read_trainer_checkpoint(folder, 3, names[:-1])

    def test_another_order_shows_in_the_shapes(self, copied):
        folder, names = copied
        with pytest.raises(CheckpointError, match="has shape"):
            read_trainer_checkpoint(folder, 3, names[::-1])

    def test_a_parameter_that_never_moved(self, copied):
        folder, names = copied
        self._spoil(folder, lambda saved: saved["state"].pop(3))
        with pytest.raises(CheckpointError, match=r"no moments for .*never took a step"):
            read_trainer_checkpoint(folder, 3, names)

    def test_an_optimizer_that_is_not_adam(self, copied):
        folder, names = copied

        def rename(saved):
            for entry in saved["state"].values():
                entry["momentum_buffer"] = entry.pop("exp_avg")

        self._spoil(folder, rename)
        with pytest.raises(CheckpointError, match="Adam"):
            read_trainer_checkpoint(folder, 3, names)

    @pytest.mark.parametrize(
        "damage", [b"", b"no pickle", EVIL, pickle.dumps([1], 2)], ids=["empty", "text", "code", "list"]
    )
    def test_a_damaged_or_hostile_optimizer_file(self, copied, damage):
        """Only tensors are read: a pickle that would run code is rejected like any other damage."""
        folder, names = copied
        (folder / "optimizer.pt").write_bytes(damage)
        with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
            read_trainer_checkpoint(folder, 3, names)

    @staticmethod
    def _spoil(folder, change):
        saved = torch.load(folder / "optimizer.pt", weights_only=True)
        change(saved)
        torch.save(saved, folder / "optimizer.pt")


class TestBuildFromTrainersFiles:
    """A build with checkpoints trains nothing, and takes weights, moments and adapters from them."""

    @pytest.fixture
    def build_from(self, tiny_model, tiny_pool, tmp_path):
        def run(*folders, **changes):
            config = small_config(tiny_model, checkpoints=tuple(map(str, folders)), shard_rows=64, **changes)
            return build([tiny_pool], tmp_path / "store", config, progress=Progress(quiet=True))

        return run

    def test_weights_are_the_mean_rates_shares(self, trained, build_from):
        folder, recorder, names = trained
        store = build_from(folder / "checkpoint-3", folder / "checkpoint-6")
        first, second = sum(recorder.rates[:3]) / 3, sum(recorder.rates[3:6]) / 3
        assert store.weights.tolist() == pytest.approx([first / (first + second), second / (first + second)])
        assert [info.step for info in store.manifest.checkpoints] == [3, 6]
        assert store.complete
        assert not (store.path / "warmup" / "rows.json").exists()
        for epoch, step in enumerate((3, 6)):
            given = read_trainer_checkpoint(folder / f"checkpoint-{step}", step - 3, names)
            kept = store.checkpoint(epoch)
            assert all(torch.equal(kept.adapter[n], given.adapter[n]) for n in names)
            assert all(torch.equal(kept.moments[n][1], given.moments[n][1]) for n in names)

    def test_our_own_checkpoints_can_be_given(self, trained, build_from, tmp_path):
        folder, _, names = trained
        read_trainer_checkpoint(folder / "checkpoint-3", 0, names).save(tmp_path / "ours")
        assert build_from(tmp_path / "ours").weights.tolist() == [1.0]

    def test_without_an_optimizer_only_plain_gradients(self, copied, build_from):
        folder, _ = copied
        (folder / "optimizer.pt").unlink()
        with pytest.raises(CheckpointError, match=r"no optimizer\.pt.*--gradient sgd"):
            build_from(folder)

    def test_plain_gradients_need_no_optimizer(self, copied, build_from):
        folder, _ = copied
        (folder / "optimizer.pt").unlink()
        assert build_from(folder, gradients=("sgd",)).complete

    @pytest.mark.filterwarnings("ignore")  # peft also warns of such adapters
    @pytest.mark.parametrize(
        "changes",
        [
            {"use_dora": True},
            {"modules_to_save": ["lm_head"]},
            {"lora_bias": True},
            {"target_modules": ["embed_tokens", "q_proj"]},
        ],
        ids=["dora", "a whole layer", "bias", "embedding"],
    )
    def test_an_adapter_that_is_more_than_lora_on_linear_layers_is_refused(
        self, tiny_model, build_from, tmp_path, changes
    ):
        """Its other parameters are trained as well, and a score without them would be wrong."""
        from peft import LoraConfig, get_peft_model

        config = LoraConfig(**{"r": 4, "target_modules": ATTENTION, "task_type": "CAUSAL_LM", **changes})
        get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config).save_pretrained(tmp_path / "given")
        log = [{"step": 1, "learning_rate": 0.1}]
        state = json.dumps({"global_step": 1, "log_history": log})
        (tmp_path / "given" / "trainer_state.json").write_text(state)
        with pytest.raises(GradsiftError, match="not plain LoRA"):
            build_from(tmp_path / "given", gradients=("sgd",))


def test_canonical_drops_only_the_adapters_name():
    given = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert canonical(given) == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
