"""Warmup checkpoints on disk: a PEFT adapter, Adam's moments by parameter name, and the mean learning rate.

There is a layout of our own (`adapter_model.safetensors`, `adapter_config.json`, `moments.safetensors`, `state.json`)
and a reader for Hugging Face Trainer checkpoints (`optimizer.pt` or `optimizer.bin`, `trainer_state.json`), whose
moments are keyed by index or, where FSDP saved them, by name. Parameter names are those of the adapter file:
`base_model.model....lora_A.weight`, without the adapter's name.
"""

import json
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from gradsift.model.lora import check_plain_lora
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError

_ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
_OPTIMIZER = ("optimizer.pt", "optimizer.bin")  # what the Trainer calls it, and what accelerate does under FSDP
# Parts of a parameter's name that come from a wrapper: DDP's, FSDP's, torch.compile's, that of activation checkpoints.
_WRAPPERS = {"module", "_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module"}
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
        ModelError: the adapter is not plain LoRA.
    """
    _check_files(folder)
    check_plain_lora(folder)
    if not moments:
        return
    own = (folder / "moments.safetensors").is_file()
    if not (Checkpoint.load(folder).moments if own else _optimizer_file(folder)):
        raise CheckpointError(
            f"{folder} holds no optimizer.pt or optimizer.bin, so there are no Adam moments: save the optimizer with "
            "the checkpoint, or build with --gradient sgd."
        )


def canonical(name: str) -> str:
    """A model's parameter name as in the adapter file: `...lora_A.default.weight` -> `...lora_A.weight`."""
    return name.replace(".default.", ".")


def read_trainer_checkpoint(folder: Path, previous_step: int, names: list[str]) -> Checkpoint:
    """Read a `checkpoint-N` folder that a Hugging Face Trainer wrote for a PEFT model.

    `optimizer.pt` is read, or else `optimizer.bin`. Moments go by the parameters' names where the file has them.
    previous_step: the step of the previous checkpoint (0 for the first); η̄ is the mean of the learning rates that the
    Trainer logged after it. names: canonical names of the trainable parameters in the model's order, which is also the
    optimizer's where that has no names.

    Raises:
        CheckpointError: a file is missing, a shape or a name does not match, a parameter has no moments, no learning
            rate was logged between the two steps, or the adapter trains more than `names`.
    """
    adapter, config = _read_adapter(folder)
    if extra := sorted(adapter.keys() ^ set(names)):
        raise CheckpointError(
            f"The adapter in {folder} is not plain LoRA on linear layers ({extra[0]}), the only kind whose gradients "
            "are taken: train one without modules_to_save, biases and embeddings."
        )
    step, mean_lr = _trainer_state(folder, previous_step)
    path = _optimizer_file(folder)
    if path is None:
        return Checkpoint(adapter, config, {}, step, (0.9, 0.999), 1e-8, mean_lr)
    state, groups = _optimizer(path)
    by_label = _names_by_label(path, state, groups)
    entries = _by_name(path, state, by_label, names) if by_label else _by_position(path, state, groups, names)
    moments = _moments(path, entries, adapter)
    taken, betas, eps = _settings(path, entries, groups[0])
    return Checkpoint(adapter, config, moments, taken, betas, eps, mean_lr)


def _optimizer_file(folder: Path) -> Path | None:
    return next((folder / name for name in _OPTIMIZER if (folder / name).is_file()), None)


def _optimizer(path: Path) -> tuple[dict[Any, dict], list[dict]]:
    """The optimizer's state and groups; a pickle with anything but tensors and numbers is rejected, never executed."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
            pickle.UnpicklingError) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} cannot be read as an optimizer's state: it is damaged or holds something else; "
            "give the file that the Trainer saved."
        ) from error
    state, groups = (saved.get("state"), saved.get("param_groups")) if isinstance(saved, dict) else (None, None)
    if not _is_state(state) or not isinstance(groups, list) or not groups or not all(map(_is_group, groups)):
        raise CheckpointError(f"{path} is not an optimizer's state; give the file that the Trainer saved.")
    labels = [label for group in groups for label in group["params"]]
    if len(set(labels)) != len(labels):
        raise CheckpointError(f"{path} lists a parameter twice; give the file that the Trainer saved.")
    return state, groups


def _is_state(state: Any) -> TypeGuard[dict[Any, dict]]:
    return isinstance(state, dict) and all(isinstance(entry, dict) for entry in state.values())


def _is_group(group: Any) -> bool:
    """Whether it lists parameters by number or name and, where it has `param_names`, a name for each."""
    if not isinstance(group, dict) or not isinstance(group.get("params"), list | tuple):
        return False
    names = group.get("param_names", [""] * len(group["params"]))
    return (
        all(isinstance(label, int | str) for label in group["params"])
        and isinstance(names, list | tuple)
        and len(names) == len(group["params"])
        and all(isinstance(name, str) for name in names)
    )


def _names_by_label(path: Path, state: dict[Any, dict], groups: list[dict]) -> dict[int | str, str]:
    """The names that the file itself gives to its parameters, by their key in `state`; empty if it has only numbers."""
    names: dict[int | str, Any] = {label: label for label in state}
    for group in groups:
        names |= zip(group["params"], group.get("param_names", group["params"]), strict=True)
    named = {label: name for label, name in names.items() if isinstance(name, str)}
    if named and (numbered := [label for label in state if label not in named]):
        raise CheckpointError(
            f"{path} names some parameters and only numbers others ({numbered[0]}), so they cannot be told apart; "
            "give the file that the Trainer saved."
        )
    return named


def _by_name(path: Path, state: dict[Any, dict], by_label: dict[int | str, str], names: list[str]) -> dict[str, dict]:
    """The entry of every parameter, found by its name in the file."""
    known = {_bare(name): name for name in names}
    entries: dict[str, dict] = {}
    for label, given in by_label.items():
        if _bare(given) not in known:
            raise CheckpointError(
                f"{path} names {given}, which is no LoRA parameter of the adapter; "
                "give the checkpoint that was saved together with this adapter."
            )
        name = known[_bare(given)]
        if label in state and name in entries:
            raise CheckpointError(f"{path} has two states for {name}; give a checkpoint of one adapter.")
        if label in state:
            entries[name] = state[label]
    return _complete(path, entries, names)


def _by_position(path: Path, state: dict[Any, dict], groups: list[dict], names: list[str]) -> dict[str, dict]:
    """The entry of every parameter. The Trainer numbers those with weight decay first, then biases and norms."""
    order = [label for group in groups for label in group["params"]]
    ordered = [n for n in names if not n.endswith(".bias")] + [n for n in names if n.endswith(".bias")]
    if len(order) != len(ordered):
        raise CheckpointError(
            f"{path} covers {len(order)} parameters, the adapter has {len(ordered)}; "
            "give the checkpoint that was saved together with this adapter."
        )
    entries = {name: state[label] for label, name in zip(order, ordered, strict=True) if label in state}
    return _complete(path, entries, ordered)


def _complete(path: Path, entries: dict[str, dict], names: list[str]) -> dict[str, dict]:
    if missing := [name for name in names if not entries.get(name)]:
        raise CheckpointError(
            f"{path} holds no moments for {missing[0]}: it never took a step, or is not in the file; "
            "give a checkpoint in which all of the adapter was trained, or build with --gradient sgd."
        )
    return entries


def _bare(name: str) -> str:
    """A parameter's name without wrappers, PEFT's prefix and the adapter's name, none of which every file has."""
    plain = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    return re.sub(r"(\.lora_[AB])\.[^.]+\.weight$", r"\1.weight", plain.removeprefix("base_model.model."))


def _moments(path: Path, entries: dict[str, dict], adapter: Tensors) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    moments = {}
    for name, entry in entries.items():
        m, v = entry.get("exp_avg"), entry.get("exp_avg_sq")
        if not isinstance(m, torch.Tensor) or not isinstance(v, torch.Tensor):
            raise CheckpointError(
                f"{path} is not from torch's Adam or AdamW, so it holds no moments; "
                "remove it and build with --gradient sgd."
            )
        for moment in (m, v):
            if moment.shape != adapter[name].shape:
                raise CheckpointError(f"{path} has shape {tuple(moment.shape)} where {name} has another.")
        moments[name] = (m.float(), v.float())
    return moments


def _settings(path: Path, entries: dict[str, dict], group: dict) -> tuple[int, tuple[float, float], float]:
    """Adam's step, betas and epsilon."""
    try:
        steps = {int(entry["step"]) for entry in entries.values()}
        beta1, beta2 = map(float, group["betas"])
        eps = float(group["eps"])
    except (LookupError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise CheckpointError(
            f"{path} lacks Adam's step, betas or epsilon; give the file that the Trainer saved."
        ) from error
    if len(steps) != 1:
        raise CheckpointError(f"{path} has parameters with different step counts {sorted(steps)}.")
    return steps.pop(), (beta1, beta2), eps


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


def _check_files(folder: Path) -> None:
    for name in _ADAPTER:
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} is not a PEFT checkpoint: {name} is missing. Give the folder that the Trainer or PEFT saved."
            )


def _read_adapter(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    _check_files(folder)
    try:
        return load_file(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"The adapter in {folder} cannot be read ({error}); save it again.") from error


def _dense(tensors: Tensors) -> Tensors:
    return {name: tensor.detach().float().cpu().contiguous() for name, tensor in tensors.items()}
