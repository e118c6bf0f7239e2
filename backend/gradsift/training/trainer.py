"""The Trainer that fine-tunes LoRA, for the warmup and for every run of an evaluation."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded
from gradsift.model.batches import pack
from gradsift.model.loss import supervised_losses
from gradsift.training import processes
from gradsift.training.schedule import epoch_order, learning_rate, steps_per_epoch

if TYPE_CHECKING:
    from peft import PeftModel


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


def _collate(examples: Sequence[Encoded]) -> dict[str, Any]:
    """Rows as they are; `shift_labels` is what the Trainer counts the supervised tokens of all processes by."""
    supervised = torch.cat([torch.tensor(e.ids)[torch.tensor(e.supervised)] for e in examples])
    return {"rows": list(examples), "labels": supervised, "shift_labels": supervised}
