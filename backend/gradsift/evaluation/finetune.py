"""One fine-tuning run from the base model, measured after every epoch on targets and held-out rows.

The recipe is the warmup's (`warmup.make_trainer`). What is measured is the mean loss of the rows' supervised tokens,
and how good the answers are that the model writes by itself (greedy).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any, Generic, TypeVar

import torch
from transformers import GenerationConfig, TrainerCallback

from gradsift.config import BuildConfig
from gradsift.data.encode import Encoded, Encoder, RenderError
from gradsift.data.pool import Row
from gradsift.evaluation.heldout import HeldOut
from gradsift.model.batches import run_batches
from gradsift.model.lora import attach_lora
from gradsift.model.loss import mean_losses, supervised_losses
from gradsift.runtime.progress import Progress
from gradsift.training.schedule import steps_per_epoch
from gradsift.training.trainer import make_trainer

T = TypeVar("T")
ROOM = 8  # tokens an answer may be longer than the longest gold
PAD = 0  # any token: it is masked
WRITING = 4096  # padded tokens a batch may have at least: a step reads the whole model, however many rows it writes on


@dataclass(frozen=True)
class Measured:
    """The model at one moment: mean loss on targets and held-out rows, and the mean judgement of its answers.

    score: None where no held-out row has a gold answer to be judged by.
    """

    target_loss: float
    loss: float
    score: float | None


@dataclass(frozen=True)
class Measure:
    """What a model is measured on. heldout, encoded: (M,) the held-out rows and their tokens, aligned. token_budget:
    padded tokens of a batch, at first: where one does not fit, it is halved.
    """

    targets: Sequence[Encoded]
    heldout: Sequence[HeldOut]
    encoded: Sequence[Encoded]
    tokenizer: Any
    token_budget: int

    def __call__(self, model: Any) -> Measured:
        """Measure `model`, which is left in the mode it was in."""
        training = model.training
        model.eval()
        try:
            target_loss = mean_loss(model, self.targets, self.token_budget)
            loss = mean_loss(model, self.encoded, self.token_budget)
            judged = [(h, e) for h, e in zip(self.heldout, self.encoded, strict=True) if h.golds]
            if not judged:
                return Measured(target_loss, loss, None)
            answers = write_answers(model, self.tokenizer, [encoded for _, encoded in judged], self.token_budget)
            scores = [row.judge(answer) for (row, _), answer in zip(judged, answers, strict=True)]
            return Measured(target_loss, loss, sum(scores) / len(scores))
        finally:
            model.train(training)


def finetune(
    base: torch.nn.Module,
    rows: Sequence[Encoded],
    config: BuildConfig,
    measure: Callable[[Any], T],
    progress: Progress,
    label: str,
) -> list[T]:
    """Train fresh LoRA layers on `rows` and measure after every epoch; `base` comes back as it was.

    config: its epochs, rate, batch size, LoRA and seed count. Returns what `measure` found, one per epoch.
    """
    peft = attach_lora(base, config)
    found: list[T] = []
    progress.stage("train", label, steps_per_epoch(len(rows), config.batch_size) * config.epochs, "steps")
    try:
        make_trainer(peft, rows, config, [_Measuring(measure, found, progress)]).train()
    finally:
        peft.unload()
        base.eval().requires_grad_(False)
    return found


def trainable(encoder: Encoder, rows: Iterable[Row], max_length: int) -> list[tuple[Row, Encoded]]:
    """The rows that this model can be trained on, with their tokens: its template takes them, and something to learn is
    left within `max_length` tokens.
    """
    found = []
    for row in rows:
        try:
            encoded = encoder.encode(row.messages, row.prefix, max_length)
        except RenderError:  # the model that selected may have a template that is less strict
            continue
        if encoded.n_answer:
            found.append((row, encoded))
    return found


def mean_loss(model: Any, rows: Sequence[Encoded], token_budget: int) -> float:
    """Mean over rows of the mean cross-entropy of their supervised tokens, in nats."""

    def losses(some: Sequence[Encoded]) -> list[float]:
        with torch.no_grad():
            return mean_losses(supervised_losses(model, some), some).tolist()

    pieces, _, _ = run_batches(rows, token_budget, losses)
    by_row = {position: loss for batch, found in pieces for position, loss in zip(batch, found, strict=True)}
    return sum(by_row[position] for position in range(len(rows))) / len(rows)


def write_answers(model: Any, tokenizer: Any, rows: Sequence[Encoded], token_budget: int) -> list[str]:
    """What the model writes in place of each row's last answer: greedy, until the turn's end or a little longer than
    the longest of those answers.
    """
    spans = [_last_answer(row) for row in rows]
    ends = _ends(tokenizer, [row.ids[stop - 1] for row, (_, stop) in zip(rows, spans, strict=True)])
    longest = max(stop - start for start, stop in spans) + ROOM
    write = partial(_written, model, ends=ends, longest=longest)
    prompts = [row.ids[:start] for row, (start, _) in zip(rows, spans, strict=True)]
    pieces, _, _ = run_batches(prompts, max(token_budget, WRITING), write, length=len)
    answers = {position: ids for batch, found in pieces for position, ids in zip(batch, found, strict=True)}
    return [tokenizer.decode(answers[position], skip_special_tokens=True) for position in range(len(rows))]


def _ends(tokenizer: Any, last: Sequence[int]) -> list[int]:
    """The tokens that end an answer. last: of every gold answer; a template that marks no end leaves an answer's own
    there, which differ.
    """
    shared = set(last) if len(set(last)) == 1 else set()
    return sorted(shared | {tokenizer.eos_token_id} - {None})


def _written(model: Any, prompts: Sequence[list[int]], ends: list[int], longest: int) -> list[list[int]]:
    """What the model writes after each prompt, without the token that ends it."""
    width = max(map(len, prompts))
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or width + longest
    settings = GenerationConfig(
        max_new_tokens=min(longest, window - width), do_sample=False, eos_token_id=ends or None, pad_token_id=PAD
    )
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = next(model.parameters()).device
    with torch.no_grad():
        found = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings)
    return [list(takewhile(lambda token: token not in ends, line[width:].tolist())) for line in found]


def _last_answer(row: Encoded) -> tuple[int, int]:
    """Where the last answer begins and ends: its run of supervised tokens."""
    stop = len(row.ids) - row.supervised[::-1].index(True)
    start = stop
    while start and row.supervised[start - 1]:
        start -= 1
    return start, stop


class _Measuring(TrainerCallback, Generic[T]):
    def __init__(self, measure: Callable[[Any], T], found: list[T], progress: Progress) -> None:
        self.measure, self.found, self.progress = measure, found, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance()

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.found.append(self.measure(model))
