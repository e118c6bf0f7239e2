"""The LoRA warmup (paper, section 4.2): a short training run whose per-epoch states the gradients are taken at.

transformers' Trainer and PEFT do the training. Order of the data and dropout are functions of (seed, epoch) and
(seed, step) alone, so that a run that was killed goes on from its last whole epoch and ends with the same bytes.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import cos, pi
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded
from gradsift.gradients.extract import pack
from gradsift.gradients.per_example import supervised_losses
from gradsift.runtime import atomic
from gradsift.runtime.progress import Progress
from gradsift.training import processes
from gradsift.training.checkpoint import Checkpoint, canonical

if TYPE_CHECKING:
    from peft import PeftModel

WARMUP_SHARE = 0.03  # of all steps: the linear rise before the cosine decay
FEWEST_STEPS = 10  # an epoch with fewer is a poor estimate of Adam's moments


def choose_rows(usable: int, fraction: float, seed: int) -> list[int]:
    """Positions (0..usable-1, ascending) of the seeded random subset the warmup trains on; at least one."""
    count = max(1, int(usable * fraction))
    return sorted(np.random.default_rng([seed, 1]).choice(usable, size=count, replace=False).tolist())


def learning_rate(step: int, steps: int) -> float:
    """Factor on the peak rate at 0-based `step` of `steps`: linear rise, cosine decay, never zero."""
    rise = round(WARMUP_SHARE * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + cos(pi * (step - rise) / max(1, steps - rise)))


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Optimizer steps of one epoch."""
    return -(-rows // batch_size)


def epoch_order(size: int, seed: int, epoch: int) -> list[int]:
    """A permutation that is a function of (seed, epoch), so that a resumed epoch sees what the unbroken one saw."""
    return np.random.default_rng([seed, 2, epoch]).permutation(size).tolist()


def short_epoch_note(rows: int, batch_size: int) -> str | None:
    """A warning when an epoch has too few steps for Adam's moments to mean much, with the batch size that would do."""
    steps = steps_per_epoch(rows, batch_size)
    if steps >= FEWEST_STEPS:
        return None
    better = max(1, rows // FEWEST_STEPS)
    hint = f"--batch-size {better} would give {steps_per_epoch(rows, better)}"
    if better == batch_size:
        hint = "a larger --warmup-fraction gives more"
    return f"The warmup takes only {steps} optimizer steps an epoch ({rows} rows in batches of {batch_size}); {hint}."


@dataclass
class Warmup:
    """One warmup run into `folder` (the store's `warmup/`) and `checkpoints` (the store's `checkpoints/`)."""

    config: BuildConfig
    folder: Path
    checkpoints: Path
    progress: Progress

    def run(self, model: "PeftModel", examples: Sequence[Encoded]) -> None:
        """Train, leaving `checkpoints/epoch-i` for every epoch and the loss curve; goes on where a killed run stopped.

        model: a freshly attached LoRA model. examples: the encoded warmup subset, in row order.
        """
        if (self.folder / "log.json").is_file():  # written last: the warmup is over
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
        kept = [{k: e[k] for k in ("step", "epoch", "loss", "learning_rate", "grad_norm")} for e in log]
        atomic.write_json(self.folder / "log.json", kept)
        self._clear()

    def _clear(self) -> None:
        """Remove the Trainer's own state, which only a resumed warmup needs."""
        if processes.rank() == 0:
            atomic.remove(self.folder / "trainer")

    def _last_whole_epoch(self) -> Path | None:
        """The Trainer's own state of the last epoch whose checkpoint of ours exists: ours is written after it."""
        for epoch in range(self.config.epochs, 0, -1):
            if (self.checkpoints / f"epoch-{epoch}").is_dir():
                step = Checkpoint.load(self.checkpoints / f"epoch-{epoch}").step
                if (self.folder / "trainer" / f"checkpoint-{step}").is_dir():
                    return self.folder / "trainer" / f"checkpoint-{step}"
        return None


def make_trainer(
    model: "PeftModel",
    examples: Sequence[Encoded],
    config: BuildConfig,
    callbacks: Sequence[TrainerCallback],
    folder: Path | None = None,
) -> Trainer:
    """A Trainer that fine-tunes `model` on `examples` by the config's rate, batch size, epochs and seed.

    The warmup's recipe, and the one that every selection is evaluated with. folder: where it saves its own state at the
    end of every epoch; None: nothing is saved.
    """
    total = steps_per_epoch(len(examples), config.batch_size) * config.epochs
    trainer = _Trainer(
        model=model,
        args=_arguments(config, next(model.parameters()).device, folder),
        train_dataset=_Examples(examples),
        data_collator=_collate,
        callbacks=[_Seeding(config.seed), *callbacks],
        optimizers=make_optimizer(model, config.lr, total),
    )
    trainer.order_seed = config.seed
    trainer.token_budget = config.resolve_training_budget(next(model.parameters()).device.type)
    trainer.model_accepts_loss_kwargs = True  # the Trainer then counts supervised tokens, whatever the model's own loss
    trainer.remove_callback(PrinterCallback)  # standard output belongs to results
    return trainer


def _arguments(config: BuildConfig, device: torch.device, folder: Path | None) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder or tempfile.gettempdir()),  # which the Trainer makes, even to write nothing there
        per_device_train_batch_size=config.batch_size // processes.size(),
        num_train_epochs=config.epochs,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no" if folder is None else "epoch",
        save_total_limit=2,  # the newest may be half-written when the power goes; the one before is then whole
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
    )
    arguments.mixed_precision = "no"  # a launcher's bf16 would put LoRA's products under autocast: they are fp32
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more would silently multiply the batch size
    return arguments


def make_optimizer(model: "PeftModel", lr: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW over the LoRA parameters, without weight decay, and `learning_rate` as its schedule."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr, weight_decay=0)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))


class _Examples(torch.utils.data.Dataset):
    def __init__(self, examples: Sequence[Encoded]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Encoded:
        return self.examples[index]


class _EpochOrder(torch.utils.data.Sampler[int]):
    """`epoch_order` as the Trainer asks for it."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.size, self.seed, self.epoch))


class _Trainer(Trainer):
    order_seed = 0
    token_budget = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> torch.utils.data.Sampler:
        return _EpochOrder(len(cast(_Examples, self.train_dataset)), self.order_seed)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """The mean loss of the batch's supervised tokens, and its gradient.

        The rows go through in packed pieces, which changes memory and time, not the result: rows in the order of an
        epoch have all lengths, so padded to the longest half of what is computed would be padding. Where a piece does
        not fit, the step begins again with pieces of half the size, and so do all that follow.
        """
        model.train()
        rows = inputs["rows"]
        while True:
            pieces = pack([len(row.ids) for row in rows], self.token_budget)
            try:
                return self._descend(
                    model, [[rows[position] for position in piece] for piece in pieces], num_items_in_batch
                )
            except torch.OutOfMemoryError:
                if processes.size() > 1 or len(pieces) == len(
                    rows
                ):  # the others would wait for a piece that never comes
                    raise
            model.zero_grad()  # of the pieces before; the error, and the tensors it held, are gone by now
            torch.cuda.empty_cache()
            self.token_budget = max(len(piece) * max(len(rows[at].ids) for at in piece) for piece in pieces) // 2

    def _descend(self, model: torch.nn.Module, pieces: list[list[Encoded]], tokens: Any) -> torch.Tensor:
        """Add up the gradients of a step; returns its loss. tokens: the supervised ones of all processes."""
        total = torch.zeros((), device=self.args.device)
        for number, piece in enumerate(pieces, start=1):
            # Several processes: each has the gradient of its own rows; they are averaged after the last piece.
            with self.accelerator.no_sync(model) if number < len(pieces) else nullcontext():
                loss = supervised_losses(model, piece).sum() * processes.size() / tokens
                self.accelerator.backward(loss)
            total += loss.detach()
        return total


class _Seeding(TrainerCallback):
    """Dropout as a function of (seed, step), and of the process, so that no two drop the same of their rows."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        entropy = [self.seed, 3, state.global_step, *([processes.rank()] if processes.rank() else [])]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


class _Reporting(TrainerCallback):
    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance()


class _Saving(TrainerCallback):
    """Writes our checkpoint once the Trainer's own state of the epoch is on disk."""

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
    """The model's LoRA weights and the optimizer's moments as a checkpoint, by canonical parameter name.

    base: what the adapter's config calls its base model: the name the person gave, not this machine's cache folder.
    """
    trainable = {canonical(name): p for name, p in model.named_parameters() if p.requires_grad}
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
    moments = {name: (inner.state[p]["exp_avg"], inner.state[p]["exp_avg_sq"]) for name, p in trainable.items()}
    step = int(inner.state[next(iter(trainable.values()))]["step"])
    group = inner.param_groups[0]
    config = {**model.peft_config["default"].to_dict(), "base_model_name_or_path": base}
    return Checkpoint(dict(trainable), _plain(config), moments, step, group["betas"], group["eps"], mean_lr)


def _plain(value: Any) -> Any:
    """A PEFT config as JSON with one spelling: sets sorted, enumerations by value."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(v) for v in value)
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return getattr(value, "value", value) if not isinstance(value, (str, int, float, bool, type(None))) else value


def _collate(examples: Sequence[Encoded]) -> dict[str, Any]:
    """Rows as they are; `shift_labels` is what the Trainer counts the supervised tokens of all processes by."""
    supervised = torch.cat([torch.tensor(e.ids)[torch.tensor(e.supervised)] for e in examples])
    return {"rows": list(examples), "labels": supervised, "shift_labels": supervised}
