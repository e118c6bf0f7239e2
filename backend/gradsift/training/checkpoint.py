"""Warmup checkpoints on disk: a PEFT adapter, Adam's moments by parameter name, and the mean learning rate.

There is a layout of our own (`adapter_model.safetensors`, `adapter_config.json`, `moments.safetensors`, `state.json`)
and a reader for Hugging Face Trainer checkpoints (`optimizer.pt`, `trainer_state.json`), whose moments are keyed by
index. Parameter names are those of the adapter file: `base_model.model....lora_A.weight`, without the adapter's name.
"""

import json
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError

_ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
Tensors = dict[str, torch.Tensor]


class CheckpointError(GradsiftError):
    """A checkpoint is missing or incomplete, or does not fit the model."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after one epoch.

    adapter: LoRA weights by name. moments: name -> (m, v), torch's first and second moments without bias correction;
    empty if there are none. step: Adam's t. mean_lr: η̄, the mean learning rate of the epoch.
    """

    adapter: Tensors
    adapter_config: dict[str, Any]
    moments: dict[str, tuple[torch.Tensor, torch.Tensor]]
    step: int
    betas: tuple[float, float]
    eps: float
    mean_lr: float

    def save(self, folder: Path) -> None:
        """Write the checkpoint; `folder` appears complete or not at all."""
        partial = folder.with_name(atomic.TEMPORARY + folder.name)
        atomic.remove(partial)
        partial.mkdir(parents=True)
        flat = {f"{name}.{kind}": t for name, pair in self.moments.items() for kind, t in zip("mv", pair, strict=True)}
        atomic.write_bytes(partial / "adapter_model.safetensors", save(_dense(self.adapter), {"format": "pt"}))
        atomic.write_json(partial / "adapter_config.json", self.adapter_config)
        atomic.write_bytes(partial / "moments.safetensors", save(_dense(flat), {"format": "pt"}))
        state = {"step": self.step, "betas": list(self.betas), "eps": self.eps, "mean_lr": self.mean_lr}
        atomic.write_json(partial / "state.json", state)
        replaced = folder.with_name(f"{atomic.TEMPORARY}replaced-{folder.name}")
        if folder.exists():
            atomic.remove(replaced)
            os.rename(folder, replaced)
        os.rename(partial, folder)
        atomic.sync_folder(folder.parent)
        atomic.remove(replaced)

    @classmethod
    def load(cls, folder: Path) -> "Checkpoint":
        """Read a checkpoint that `save` wrote.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        adapter, config = _read_adapter(folder)
        try:
            state = json.loads((folder / "state.json").read_text())
            flat = load_file(folder / "moments.safetensors")
            moments = {name: (flat[f"{name}.m"], flat[f"{name}.v"]) for name in adapter if f"{name}.m" in flat}
            betas = (state["betas"][0], state["betas"][1])
            return cls(adapter, config, moments, state["step"], betas, state["eps"], state["mean_lr"])
        except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
            raise CheckpointError(
                f"The checkpoint {folder} is incomplete or damaged ({error}); restore it or train it again."
            ) from error


def check_folder(folder: Path, moments: bool) -> None:
    """Check before a build that a checkpoint's files are there. moments: whether Adam's moments are needed.

    Raises:
        CheckpointError: a file is missing, or one in our own layout is damaged.
    """
    for name in _ADAPTER:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is not a PEFT checkpoint: {name} is missing. Give the folder that the Trainer or PEFT saved."
            )
    if not moments:
        return
    own = (folder / "moments.safetensors").is_file()
    if not (Checkpoint.load(folder).moments if own else (folder / "optimizer.pt").is_file()):
        raise CheckpointError(
            f"{folder} holds no optimizer.pt, so there are no Adam moments: save the optimizer with the checkpoint, "
            "or build with --gradient sgd."
        )


def canonical(name: str) -> str:
    """A model's parameter name as in the adapter file: `...lora_A.default.weight` -> `...lora_A.weight`."""
    return name.replace(".default.", ".")


def read_trainer_checkpoint(folder: Path, previous_step: int, names: list[str]) -> Checkpoint:
    """Read a `checkpoint-N` folder that a Hugging Face Trainer wrote for a PEFT model.

    previous_step: the step of the previous checkpoint (0 for the first); η̄ is the mean of the learning rates that the
    Trainer logged after it. names: canonical names of the trainable parameters in the model's order, which is also the
    optimizer's.

    Raises:
        CheckpointError: a file is missing, a shape does not match, no learning rate was logged between the two steps,
            or the adapter trains more than `names`.
    """
    adapter, config = _read_adapter(folder)
    if extra := sorted(adapter.keys() ^ set(names)):
        raise CheckpointError(
            f"The adapter in {folder} is not plain LoRA on linear layers ({extra[0]}), the only kind whose gradients "
            "are taken: train one without modules_to_save, biases and embeddings."
        )
    step, mean_lr = _trainer_state(folder, previous_step)
    if not (folder / "optimizer.pt").is_file():
        return Checkpoint(adapter, config, {}, step, (0.9, 0.999), 1e-8, mean_lr)
    optimizer = _optimizer(folder / "optimizer.pt")
    order = [index for group in optimizer["param_groups"] for index in group["params"]]
    moments = _match(folder, optimizer["state"], order, names, adapter)
    group = optimizer["param_groups"][0]
    steps = {int(entry["step"]) for entry in optimizer["state"].values()}
    if len(steps) != 1:
        raise CheckpointError(f"{folder}/optimizer.pt has parameters with different step counts {sorted(steps)}.")
    return Checkpoint(adapter, config, moments, steps.pop(), tuple(group["betas"]), float(group["eps"]), mean_lr)


def _optimizer(path: Path) -> dict[str, Any]:
    """The optimizer's state dict; a pickle with anything but tensors and numbers is rejected, never executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{path} cannot be read as an optimizer's state: it is damaged or holds something else; "
            "give the file that the Trainer saved."
        ) from error
    if not isinstance(state, dict) or not {"state", "param_groups"} <= state.keys():
        raise CheckpointError(f"{path} is not an optimizer's state; give the file that the Trainer saved.")
    return state


def _match(folder: Path, state: dict, order: list[int], names: list[str], adapter: Tensors) -> dict:
    """Moments by index -> by name. The Trainer numbers parameters with weight decay first, then biases and norms."""
    decayed = [n for n in names if not n.endswith(".bias")]
    ordered = decayed + [n for n in names if n.endswith(".bias")]
    if len(order) != len(ordered):
        raise CheckpointError(
            f"{folder}/optimizer.pt covers {len(order)} parameters, the adapter has {len(ordered)}; "
            "give the checkpoint that was saved together with this adapter."
        )
    moments = {}
    for index, name in zip(order, ordered, strict=True):
        if index not in state:
            raise CheckpointError(f"{folder}/optimizer.pt holds no moments for {name}: it never took a step.")
        if not {"exp_avg", "exp_avg_sq"} <= state[index].keys():
            raise CheckpointError(
                f"{folder}/optimizer.pt is not from torch's Adam or AdamW, so it holds no moments; "
                "remove it and build with --gradient sgd."
            )
        m, v = state[index]["exp_avg"], state[index]["exp_avg_sq"]
        if m.shape != adapter[name].shape:
            raise CheckpointError(f"{folder}/optimizer.pt has shape {tuple(m.shape)} where {name} has another.")
        moments[name] = (m.float(), v.float())
    return moments


def _trainer_state(folder: Path, previous_step: int) -> tuple[int, float]:
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
        step = int(state["global_step"])
        log = [entry for entry in state["log_history"] if previous_step < entry["step"] <= step]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{folder} has no readable trainer_state.json ({error}), from which the weight is taken: restore it."
        ) from error
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    if not rates or sum(rates) <= 0:
        raise CheckpointError(
            f"{folder}/trainer_state.json logged no learning rate between steps {previous_step} and {step}; "
            "train with logging_steps=1, or give the checkpoints in the order of their steps."
        )
    return step, sum(rates) / len(rates)


def _read_adapter(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    check_folder(folder, moments=False)
    try:
        return load_file(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"The adapter in {folder} cannot be read ({error}); save it again.") from error


def _dense(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
