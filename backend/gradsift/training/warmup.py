"""The LoRA warmup (paper, section 4.2): a short training run; gradients are later taken at its state after each epoch.

transformers' Trainer and PEFT do the training. Data order and dropout depend only on (seed, epoch) and (seed, step), so
a killed run resumes after its last complete epoch and ends with the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded
from gradsift.runtime import atomic
from gradsift.runtime.progress import Progress
from gradsift.training import processes
from gradsift.training.checkpoint import Checkpoint, canonical
from gradsift.training.schedule import steps_per_epoch
from gradsift.training.trainer import make_trainer

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass
class Warmup:
    """One warmup run, written to `folder` (the store's `warmup/`) and `checkpoints` (the store's `checkpoints/`)."""

    config: BuildConfig
    folder: Path
    checkpoints: Path
    progress: Progress

    def run(self, model: "PeftModel", examples: Sequence[Encoded]) -> None:
        """Train and write `checkpoints/epoch-i` for every epoch and the loss curve; a killed run is resumed.

        model: a fresh LoRA model. examples: the encoded warmup subset, in row order.
        """
        if (self.folder / "log.json").is_file():  # written last, so the warmup is complete
            return self._clear()
        steps = steps_per_epoch(len(examples), self.config.batch_size)
        callbacks = [_Reporting(self.progress), _Saving(self, model)]
        trainer = make_trainer(model, examples, self.config, callbacks, self.folder / "trainer")
        resume = self._last_whole_epoch()
        done = 0 if resume is None else int(resume.name.rsplit("-", 1)[1])
        total = steps * self.config.epochs
        self.progress.stage("warmup", "Warmup", total, "steps", done=done)
        trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        if processes.rank() > 0:
            return
        log = [e for e in trainer.state.log_history if "learning_rate" in e]
        curve = [{k: e[k] for k in ("step", "epoch", "loss", "learning_rate", "grad_norm")} for e in log]
        atomic.write_json(self.folder / "log.json", curve)
        self._clear()

    def _clear(self) -> None:
        """Remove the Trainer's own state, which only resuming needs."""
        if processes.rank() == 0:
            atomic.remove(self.folder / "trainer")

    def _last_whole_epoch(self) -> Path | None:
        """The Trainer's state after the last epoch that has a checkpoint of ours, which is written after it."""
        for epoch in range(self.config.epochs, 0, -1):
            if (self.checkpoints / f"epoch-{epoch}").is_dir():
                step = Checkpoint.load(self.checkpoints / f"epoch-{epoch}").step
                if (self.folder / "trainer" / f"checkpoint-{step}").is_dir():
                    return self.folder / "trainer" / f"checkpoint-{step}"
        return None


class _Reporting(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance()


class _Saving(TrainerCallback):
    """Writes our checkpoint once the Trainer's state after the epoch is on disk."""

    def __init__(self, warmup: Warmup, model: "PeftModel") -> None:
        self.warmup, self.model = warmup, model

    def on_save(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        epoch = round(state.epoch)
        before = state.global_step * (epoch - 1) // epoch
        rates = [e["learning_rate"] for e in state.log_history if "learning_rate" in e and e["step"] > before]
        checkpoint = snapshot(self.model, optimizer, sum(rates) / len(rates), self.warmup.config.model)
        checkpoint.save(self.warmup.checkpoints / f"epoch-{epoch}")


def snapshot(model: "PeftModel", optimizer: torch.optim.Optimizer, mean_lr: float, base: str) -> Checkpoint:
    """A checkpoint of the model's LoRA weights and the optimizer's moments, by canonical parameter name.

    base: the base model's name for the adapter's config: as the user gave it, not this machine's cache folder.
    """
    trainable = {canonical(name): p for name, p in model.named_parameters() if p.requires_grad}
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    moments = {name: (inner.state[p]["exp_avg"], inner.state[p]["exp_avg_sq"]) for name, p in trainable.items()}
    step = int(inner.state[next(iter(trainable.values()))]["step"])
    group = inner.param_groups[0]
    config = {**model.peft_config["default"].to_dict(), "base_model_name_or_path": base}
    return Checkpoint(dict(trainable), _plain(config), moments, step, group["betas"], group["eps"], mean_lr)


def _plain(value: Any) -> Any:
    """A PEFT config in canonical JSON form: sets sorted, enumerations replaced by their values."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return getattr(value, "value", value) if not isinstance(value, (str, int, float, bool, type(None))) else value
