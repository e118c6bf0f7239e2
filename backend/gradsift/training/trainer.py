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
    """A Trainer that fine-tunes `model` on `examples` with the config's learning rate, batch size, epochs and seed.

    The warmup and all evaluations of selections share this recipe. folder: where the Trainer saves its state after
    every epoch; None: nothing is saved.
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
    trainer.model_accepts_loss_kwargs = True  # so that the Trainer counts supervised tokens, whatever the model
    trainer.remove_callback(PrinterCallback)  # standard output is for results
    return trainer


def _arguments(config: BuildConfig, device: torch.device, folder: Path | None) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder or tempfile.gettempdir()),  # the Trainer creates it even to write nothing
        per_device_train_batch_size=config.batch_size // processes.size(),
        num_train_epochs=config.epochs,
        logging_steps=1,
        logging_strategy="steps",
        save_strategy="no" if folder is None else "epoch",
        save_total_limit=2,  # a power cut may leave the newest half-written; the previous one is whole
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=config.seed,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
    )
    arguments.mixed_precision = "no"  # a launcher's bf16 would autocast LoRA's products, which stay fp32
    arguments._n_gpu = min(arguments.n_gpu, 1)  # more would silently multiply the batch size
    return arguments


def make_optimizer(model: "PeftModel", lr: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW over the LoRA parameters, without weight decay, and its schedule, `learning_rate`."""
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
    """`epoch_order` as a sampler for the Trainer."""

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
        """Compute the mean loss of the batch's supervised tokens and its gradient.

        The rows are processed in packed pieces, which saves memory and time but does not change the result: a batch in
        epoch order mixes lengths, so padding to the longest row would waste half of the work. If a piece does not fit,
        this step starts over with pieces of half the size, and so do all later steps.
        """
        model.train()
        rows = inputs["rows"]
        while True:
            pieces = pack([len(row.ids) for row in rows], self.token_budget)
            try:
                batches = [[rows[position] for position in piece] for piece in pieces]
                return self._descend(model, batches, num_items_in_batch)
            except torch.OutOfMemoryError:
                if processes.size() > 1 or len(pieces) == len(rows):  # others would wait for a piece that never comes
                    raise
            model.zero_grad()  # drops the earlier pieces; the error, and the tensors it held, are gone by now
            torch.cuda.empty_cache()
            self.token_budget = max(len(piece) * max(len(rows[at].ids) for at in piece) for piece in pieces) // 2

    def _descend(self, model: torch.nn.Module, pieces: list[list[Encoded]], tokens: Any) -> torch.Tensor:
        """Accumulate a step's gradients and return its loss. tokens: number of supervised tokens in all processes."""
        total = torch.zeros((), device=self.args.device)
        for number, piece in enumerate(pieces, start=1):
            # Each process has the gradient of its own rows; they are averaged after the last piece.
            with self.accelerator.no_sync(model) if number < len(pieces) else nullcontext():
                loss = supervised_losses(model, piece).sum() * processes.size() / tokens
                self.accelerator.backward(loss)
            total += loss.detach()
        return total


class _Seeding(TrainerCallback):
    """Makes dropout depend only on (seed, step) and the process, so that processes drop different units."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        entropy = [self.seed, 3, state.global_step, *([processes.rank()] if processes.rank() else [])]
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))


def _collate(examples: Sequence[Encoded]) -> dict[str, Any]:
    """Rows as they are; from `shift_labels` the Trainer counts the supervised tokens of all processes."""
    supervised = torch.cat([torch.tensor(e.ids)[torch.tensor(e.supervised)] for e in examples])
    return {"rows": list(examples), "labels": supervised, "shift_labels": supervised}
