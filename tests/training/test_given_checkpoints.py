"""Checkpoints from other trainers: optimizers that name their parameters, and adapters that are not plain LoRA."""

import contextlib
import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model_state_dict
from reference import random_rows, small_config, with_lora
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict
from transformers import AutoModelForCausalLM

from gradsift.builder.build import build
from gradsift.builder.plan import plan
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model.load import ModelError
from gradsift.model.lora import attach_adapter
from gradsift.runtime.progress import Progress
from gradsift.training.checkpoint import CheckpointError, canonical, check_folder, read_trainer_checkpoint

Saved = dict[str, Any]


class Run:
    """Two steps of AdamW on a tiny model with LoRA, saved by number; what the optimizer held, by canonical name."""

    def __init__(self, model_folder: Path, folder: Path) -> None:
        self.model = with_lora(AutoModelForCausalLM.from_pretrained(model_folder))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        self.trainable = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trainable.values(), lr=1e-3, betas=(0.88, 0.98), eps=1e-6)
        for row in random_rows(300, [12, 15]):
            ids = torch.tensor([row.ids])
            self.optimizer.zero_grad()
            self.model(input_ids=ids, labels=ids).loss.backward()
            self.optimizer.step()
        self.moments = {canonical(n): self.optimizer.state[p] for n, p in self.trainable.items()}
        self.folder = folder
        folder.mkdir()
        save_file(get_peft_model_state_dict(self.model), folder / "adapter_model.safetensors")
        self.model.peft_config["default"].save_pretrained(folder)
        log = [{"step": 1, "learning_rate": 1e-3}, {"step": 2, "learning_rate": 1e-3}]
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": log}))
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")
        self.names = list(PerExampleGradients(self.model).shapes)


@pytest.fixture(scope="module")
def run(tiny_model, tmp_path_factory) -> Run:
    return Run(tiny_model, tmp_path_factory.mktemp("given") / "checkpoint-2")


@pytest.fixture
def folder(run, tmp_path) -> Path:
    """A copy of the run's folder that a test may change."""
    return Path(shutil.copytree(run.folder, tmp_path / "checkpoint-2"))


def by_name(run: Run, rename: Callable[[str], str] = str, backwards: bool = True) -> Saved:
    """The optimizer's state by name, in another order than the model's."""
    saved = run.optimizer.state_dict()
    order = list(enumerate(run.trainable))
    order = order[::-1] if backwards else order
    state = {rename(name): saved["state"][index] for index, name in order}
    return {"state": state, "param_groups": [{**saved["param_groups"][0], "params": list(state)}]}


def numbered_with_names(run: Run) -> Saved:
    """As torch saves an optimizer that was made of `named_parameters()`, here in the reverse order."""
    saved = run.optimizer.state_dict()
    names, last = list(run.trainable)[::-1], len(run.trainable) - 1
    state = {index: saved["state"][last - index] for index in range(len(names))}
    group = {**saved["param_groups"][0], "params": list(range(len(names))), "param_names": names}
    return {"state": state, "param_groups": [group]}


def in_two_groups(run: Run) -> Saved:
    """As optimizers with a rate for A and another for B have it."""
    saved = by_name(run)
    group = saved["param_groups"][0]
    parts = ([n for n in group["params"] if kind in n] for kind in ("lora_B", "lora_A"))
    return {**saved, "param_groups": [{**group, "params": part} for part in parts]}


def by_fsdp(run: Run) -> Saved:
    """As accelerate gets the full state that it saves as optimizer.bin."""
    return get_optimizer_state_dict(run.model, run.optimizer, options=StateDictOptions(full_state_dict=True))


def save(folder: Path, saved: Saved, name: str = "optimizer.bin") -> None:
    (folder / "optimizer.pt").unlink()
    torch.save(saved, folder / name)


def assert_moments(run: Run, folder: Path) -> None:
    result = read_trainer_checkpoint(folder, 0, run.names)
    assert (result.step, result.betas, result.eps, result.mean_lr) == (2, (0.88, 0.98), 1e-6, 1e-3)
    assert result.moments.keys() == run.moments.keys() == set(run.names)
    for name, entry in run.moments.items():
        assert torch.equal(result.moments[name][0], entry["exp_avg"]), name
        assert torch.equal(result.moments[name][1], entry["exp_avg_sq"]), name


class TestOptimizerBin:
    def test_is_read_as_optimizer_pt_is(self, run, folder):
        (folder / "optimizer.pt").rename(folder / "optimizer.bin")
        check_folder(folder, moments=True)
        assert_moments(run, folder)

    def test_optimizer_pt_comes_first(self, run, folder):
        (folder / "optimizer.bin").write_bytes(b"damaged")
        assert_moments(run, folder)

    def test_without_either_both_are_named(self, folder):
        (folder / "optimizer.pt").unlink()
        with pytest.raises(
            CheckpointError, match=r"holds no optimizer\.pt or optimizer\.bin, so there are no Adam mom"
        ):
            check_folder(folder, moments=True)
        check_folder(folder, moments=False)

    def test_nothing_in_it_is_executed(self, run, folder, tmp_path):
        class Evil:
            def __reduce__(self) -> tuple:
                return Path.touch, (tmp_path / "executed",)

        (folder / "optimizer.pt").unlink()
        for evil in (pickle.dumps(Evil(), 2), pickle.dumps({"state": Evil(), "param_groups": []}, 2)):
            (folder / "optimizer.bin").write_bytes(evil)
            with pytest.raises(CheckpointError, match=r"optimizer\.bin cannot be read as an optimizer's state"):
                read_trainer_checkpoint(folder, 0, run.names)
        torch.save({"state": Evil(), "param_groups": []}, folder / "optimizer.bin")
        with pytest.raises(CheckpointError, match=r"optimizer\.bin cannot be read as an optimizer's state"):
            read_trainer_checkpoint(folder, 0, run.names)
        assert not (tmp_path / "executed").exists()

    def test_damage_anywhere_is_an_error_in_words(self, run, folder):
        """torch raises nine kinds of errors for damaged files."""
        whole = (folder / "optimizer.pt").read_bytes()
        generator = torch.Generator().manual_seed(0)
        for place in torch.randint(min(2000, len(whole)), (150,), generator=generator).tolist():
            (folder / "optimizer.pt").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
            with contextlib.suppress(CheckpointError):  # some bytes matter to nobody
                read_trainer_checkpoint(folder, 0, run.names)

    @pytest.mark.parametrize("kinds", [("adam",), ("adam", "sgd")], ids="+".join)
    def test_a_store_is_the_same_whatever_the_file_is_called_and_keyed_by(
        self, run, folder, tiny_model, tiny_pool, tmp_path, kinds
    ):
        other = Path(shutil.copytree(folder, tmp_path / "other"))
        save(other, by_name(run))
        stores = []
        for given in (folder, other):
            config = small_config(tiny_model, checkpoints=(str(given),), gradients=kinds, shard_rows=64)
            stores.append(build([tiny_pool], tmp_path / f"store-{given.name}", config, progress=Progress(quiet=True)))
        one, two = (sorted((store.path / "features").rglob("*.safetensors")) for store in stores)
        assert len(one) == len(two) > 0
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


class TestNames:
    @pytest.mark.parametrize("name", ["optimizer.pt", "optimizer.bin"])
    @pytest.mark.parametrize("form", [by_name, numbered_with_names, in_two_groups, by_fsdp])
    def test_moments_go_by_name_not_by_position(self, run, folder, form, name):
        saved = form(run)
        assert saved["param_groups"][0].get("param_names", saved["param_groups"][0]["params"])[0] in run.trainable
        save(folder, saved, name)
        assert_moments(run, folder)

    @pytest.mark.parametrize(
        "rename",
        [
            canonical,
            lambda name: name.removeprefix("base_model.model."),
            lambda name: canonical(name).removeprefix("base_model.model."),
            lambda name: f"module.{name}",
            lambda name: f"_fsdp_wrapped_module.{name}",
            lambda name: f"_orig_mod.module.{name}",
            lambda name: name.replace(".self_attn", "._fsdp_wrapped_module._checkpoint_wrapped_module.self_attn"),
            lambda name: name.replace(".default.", ".default._fsdp_wrapped_module."),
            lambda name: name.replace(".default.", ".my_adapter."),
        ],
        ids=["adapter file", "bare", "bare file", "ddp", "fsdp", "compiled", "inside", "leaf", "other adapter"],
    )
    def test_wrappers_prefixes_and_the_adapters_name_do_not_matter(self, run, folder, rename):
        save(folder, by_name(run, rename))
        assert_moments(run, folder)

    def test_names_in_the_state_alone_are_enough(self, run, folder):
        saved = by_name(run)
        saved["param_groups"][0]["params"] = list(range(len(saved["state"])))
        save(folder, saved)
        assert_moments(run, folder)

    def test_numbers_go_by_position(self, run, folder):
        assert_moments(run, folder)

    def test_a_name_that_is_no_lora_parameter(self, run, folder):
        saved = by_name(run)
        saved["state"]["base_model.model.lm_head.weight"] = saved["state"][saved["param_groups"][0]["params"][0]]
        self._refused(run, folder, saved, r"names base_model\.model\.lm_head\.weight, which is no LoRA parameter")

    def test_a_name_in_the_groups_that_is_no_lora_parameter(self, run, folder):
        saved = by_name(run)
        saved["param_groups"][0]["params"].append("base_model.model.lm_head.weight")
        self._refused(run, folder, saved, r"names base_model\.model\.lm_head\.weight, which is no LoRA parameter")

    def test_a_layer_that_the_adapter_lacks(self, run, folder):
        saved = by_name(run, lambda name: name.replace("layers.1.", "layers.7."))
        self._refused(run, folder, saved, r"names base_model.*layers\.7\..*, which is no LoRA parameter")

    @pytest.mark.parametrize("listed", [True, False])
    def test_a_parameter_without_state(self, run, folder, listed):
        saved = by_name(run, backwards=False)
        gone = list(saved["state"])[2]
        saved["state"].pop(gone)
        if not listed:
            saved["param_groups"][0]["params"].remove(gone)
        self._refused(run, folder, saved, f"holds no moments for {canonical(gone)}: it never took a step")

    def test_a_parameter_with_empty_state(self, run, folder):
        saved = by_name(run)
        name = list(saved["state"])[2]
        saved["state"][name] = {}
        self._refused(run, folder, saved, f"holds no moments for {canonical(name)}: it never took a step")

    def test_two_adapters(self, run, folder):
        saved = by_name(run)
        other = {name.replace("default", "other"): entry for name, entry in saved["state"].items()}
        saved["state"] |= other
        saved["param_groups"][0]["params"] = list(saved["state"])
        self._refused(run, folder, saved, "has two states for base_model")

    def test_names_and_numbers_mixed(self, run, folder):
        saved = by_name(run)
        saved["state"][3] = saved["state"].pop(saved["param_groups"][0]["params"][3])
        self._refused(run, folder, saved, r"names some parameters and only numbers others \(3\)")

    def test_another_shape(self, run, folder):
        swapped = {"lora_A": "lora_B", "lora_B": "lora_A"}
        saved = by_name(run, lambda name: re.sub("lora_[AB]", lambda kind: swapped[kind[0]], name))
        self._refused(run, folder, saved, r"has shape \(\d+, \d+\) where base_model.*lora_.\.weight has another")

    @pytest.mark.parametrize(
        "change",
        [
            lambda saved: saved.update(state=[]),
            lambda saved: saved.update(state=dict.fromkeys(saved["state"], torch.ones(3))),
            lambda saved: saved.update(param_groups=[]),
            lambda saved: saved.update(param_groups={"a": 1}),
            lambda saved: saved.update(param_groups=["a"]),
            lambda saved: saved["param_groups"][0].pop("params"),
            lambda saved: saved["param_groups"][0].update(params=[[1]]),
            lambda saved: saved["param_groups"][0].update(param_names=["a"]),
            lambda saved: saved["param_groups"][0].update(param_names=[0] * len(saved["state"])),
            lambda saved: saved.clear(),
        ],
    )
    def test_what_is_no_optimizers_state(self, run, folder, change):
        saved = by_name(run)
        change(saved)
        self._refused(run, folder, saved, r"optimizer\.bin is not an optimizer's state")

    def test_a_parameter_listed_twice(self, run, folder):
        saved = run.optimizer.state_dict()
        saved["param_groups"][0]["params"][1] = 0
        self._refused(run, folder, saved, "lists a parameter twice")

    @pytest.mark.parametrize("key", ["step", "betas", "eps"])
    def test_without_adams_settings(self, run, folder, key):
        saved = by_name(run)
        saved["state"] = {name: dict(entry) for name, entry in saved["state"].items()}
        for place in (saved["param_groups"][0], *saved["state"].values()):
            place.pop(key, None)
        self._refused(run, folder, saved, "lacks Adam's step, betas or epsilon")

    @staticmethod
    def _refused(run: Run, folder: Path, saved: Saved, match: str) -> None:
        save(folder, saved)
        with pytest.raises(CheckpointError, match=match):
            read_trainer_checkpoint(folder, 0, run.names)


REFUSED = [
    ({"alora_invocation_tokens": [5, 6]}, r"aLoRA \(alora_invocation_tokens\)"),
    ({"use_dora": True}, r"DoRA \(use_dora\)"),
    ({"use_qalora": True}, r"QALoRA \(use_qalora\)"),
    ({"use_bdlora": {"nblocks": 2}}, r"BD-LoRA \(use_bdlora\)"),
    ({"arrow_config": {"top_k": 3}}, r"Arrow \(arrow_config\)"),
    ({"kasa_config": {"beta": 1e-4}}, r"KaSA \(kasa_config\)"),
    ({"monteclora_config": {"num_samples": 4}}, r"MonteCLoRA \(monteclora_config\)"),
    ({"velora_config": {"scale": 1}}, r"VeLoRA \(velora_config\)"),
    ({"megatron_config": {"a": 1}}, r"LoRA on layers of Megatron \(megatron_config\)"),
    ({"modules_to_save": ["lm_head"]}, r"LoRA with whole layers \(modules_to_save\)"),
    ({"bias": "lora_only"}, r"LoRA with biases \(bias='lora_only'\)"),
    ({"lora_bias": True}, r"LoRA with biases \(lora_bias\)"),
    ({"trainable_token_indices": [3]}, r"LoRA with token embeddings \(trainable_token_indices\)"),
    ({"target_parameters": ["experts.down_proj"]}, r"LoRA on bare parameters \(target_parameters\)"),
    ({"peft_type": "IA3"}, r"IA3 \(peft_type\)"),
    ({"peft_type": "ADALORA"}, r"ADALORA \(peft_type\)"),
    ({"peft_type": "NEWER_THAN_PEFT"}, r"NEWER_THAN_PEFT \(peft_type\)"),
    ({"peft_type": None}, "of an unknown kind"),
]


class TestAdapters:
    @pytest.mark.parametrize(("changes", "named"), REFUSED, ids=[str(changes) for changes, _ in REFUSED])
    def test_what_is_not_plain_lora_is_refused_by_name(self, folder, changes, named):
        self._change(folder, changes)
        sentence = f"is not plain LoRA but {named}.*: give another one.$"
        with pytest.raises(ModelError, match=sentence):
            check_folder(folder, moments=False)
        with pytest.raises(ModelError, match=sentence):
            attach_adapter(torch.nn.Linear(1, 1), folder)

    @pytest.mark.parametrize("how", [{"init_lora_weights": "pissa"}, {"layer_replication": [[0, 2], [1, 2]]}])
    def test_what_changed_the_base_weights_is_refused_too(self, folder, how):
        self._change(folder, how)
        with pytest.raises(ModelError, match=f"made with {next(iter(how))}.*, which changes the base model"):
            check_folder(folder, moments=False)

    @pytest.mark.parametrize("text", ["half a", "[" * 100_000, "\ud800"])
    def test_a_file_that_cannot_be_read(self, folder, text):
        (folder / "adapter_config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(ModelError, match=r"The adapter_config\.json in .* cannot be read"):
            check_folder(folder, moments=False)

    @pytest.mark.parametrize("text", ["[]", "3", "null", "{}"])
    def test_a_file_of_another_kind(self, folder, text):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(ModelError, match="has no peft_type"):
            check_folder(folder, moments=False)

    @pytest.mark.parametrize(
        "harmless",
        [
            {"use_rslora": True},
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
            {"lora_dropout": 0.1, "alora_invocation_tokens": None, "modules_to_save": [], "bias": "none"},
            {"init_lora_weights": "gaussian"},
        ],
    )
    def test_what_is_plain_lora_is_not(self, folder, harmless):
        self._change(folder, harmless)
        check_folder(folder, moments=True)

    @pytest.mark.parametrize("start", [build, plan])
    def test_before_the_pool_is_read(self, folder, tiny_model, tmp_path, start):
        """The pool does not exist, and the adapter is what is complained of."""
        self._change(folder, {"alora_invocation_tokens": [5, 6]})
        config = small_config(tiny_model, checkpoints=(str(folder),))
        arguments = ([tmp_path / "none.jsonl"], *([tmp_path / "store"] if start is build else []), config)
        with pytest.raises(ModelError, match="is not plain LoRA but aLoRA"):
            start(*arguments, progress=Progress(quiet=True))
        assert not (tmp_path / "store" / "manifest.json").exists()

    @staticmethod
    def _change(folder: Path, changes: dict) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
