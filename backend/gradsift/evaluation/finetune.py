"""One fine-tuning run from the base model, measured after every epoch on targets and held-out rows.

The recipe is the warmup's (`trainer.make_trainer`). Measured are the mean loss of the rows' supervised tokens and the
quality of the answers that the model generates (greedily).
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
ROOM = 8  # tokens by which an answer may exceed the longest gold answer
PAD = 0  # any token would do: it is masked
WRITING = 4096  # least token budget for generation: each step reads the whole model, whatever the number of rows


@dataclass(frozen=True)
class Measured:
    """Measurements of a model: mean loss on targets and on held-out rows, and the mean score of its answers.

    score: None if no held-out row has a gold answer that can be judged.
    """

    target_loss: float
    loss: float
    score: float | None


@dataclass(frozen=True)
class Measure:
    """Measures models on targets and held-out rows.

    heldout, encoded: (M,) the held-out rows and their tokens, aligned. token_budget: initial maximum of padded tokens
    per batch, lowered when a batch does not fit.
    """

    targets: Sequence[Encoded]
    heldout: Sequence[HeldOut]
    encoded: Sequence[Encoded]
    tokenizer: Any
    token_budget: int

    def __call__(self, model: Any) -> Measured:
        """Measure `model` and restore its training or eval mode."""
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
    """Train fresh LoRA layers on `rows` and call `measure` after every epoch; `base` is left unchanged.

    config: only its epochs, learning rate, batch size, LoRA and seed matter. Returns the results of `measure`.
    """
    peft = attach_lora(base, config)
    results: list[T] = []
    progress.stage("train", label, steps_per_epoch(len(rows), config.batch_size) * config.epochs, "steps")
    try:
        make_trainer(peft, rows, config, [_Measuring(measure, results, progress)]).train()
    finally:
        peft.unload()
        base.eval().requires_grad_(False)
    return results


def trainable(encoder: Encoder, rows: Iterable[Row], max_length: int) -> list[tuple[Row, Encoded]]:
    """The rows that a model can be trained on, with their tokens: its template accepts them, and they have something to
    learn within `max_length` tokens.
    """
    pairs = []
    for row in rows:
        try:
            encoded = encoder.encode(row.conversation, max_length)
        except RenderError:  # the template of the model that selected may be less strict
            continue
        if encoded.n_answer:
            pairs.append((row, encoded))
    return pairs


def mean_loss(model: Any, rows: Sequence[Encoded], token_budget: int) -> float:
    """Mean over rows of the mean cross-entropy of their supervised tokens, in nats."""

    def losses(batch: Sequence[Encoded]) -> list[float]:
        with torch.no_grad():
            return mean_losses(supervised_losses(model, batch), batch).tolist()

    pieces, _, _ = run_batches(rows, token_budget, losses)
    by_row = {position: loss for batch, values in pieces for position, loss in zip(batch, values, strict=True)}
    return sum(by_row[position] for position in range(len(rows))) / len(rows)


def write_answers(model: Any, tokenizer: Any, rows: Sequence[Encoded], token_budget: int) -> list[str]:
    """The model's own text in place of each row's last answer: generated greedily until the turn ends or the text is a
    little longer than the longest of the original answers.
    """
    spans = [_last_answer(row) for row in rows]
    ends = _ends(tokenizer, [row.ids[stop - 1] for row, (_, stop) in zip(rows, spans, strict=True)])
    longest = max(stop - start for start, stop in spans) + ROOM
    write = partial(_generate, model, ends=ends, longest=longest)
    prompts = [row.ids[:start] for row, (start, _) in zip(rows, spans, strict=True)]
    pieces, _, _ = run_batches(prompts, max(token_budget, WRITING), write, length=len)
    answers = {position: ids for batch, texts in pieces for position, ids in zip(batch, texts, strict=True)}
    return [tokenizer.decode(answers[position], skip_special_tokens=True) for position in range(len(rows))]


def _ends(tokenizer: Any, last: Sequence[int]) -> list[int]:
    """The tokens that end an answer. last: the last token of every gold answer; if they differ, the template does not
    mark the end of a turn.
    """
    shared = set(last) if len(set(last)) == 1 else set()
    return sorted(shared | {tokenizer.eos_token_id} - {None})


def _generate(model: Any, prompts: Sequence[list[int]], ends: list[int], longest: int) -> list[list[int]]:
    """The tokens that the model generates after each prompt, without the one that ends the answer."""
    width = max(map(len, prompts))
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None) or width + longest
    settings = GenerationConfig(
        max_new_tokens=min(longest, window - width), do_sample=False, eos_token_id=ends or None, pad_token_id=PAD
    )
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    device = next(model.parameters()).device
    with torch.no_grad():
        lines = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=settings)
    return [list(takewhile(lambda token: token not in ends, line[width:].tolist())) for line in lines]


def _last_answer(row: Encoded) -> tuple[int, int]:
    """(start, stop) of the last answer's run of supervised tokens."""
    stop = len(row.ids) - row.supervised[::-1].index(True)
    start = stop
    while start and row.supervised[start - 1]:
        start -= 1
    return start, stop


class _Measuring(TrainerCallback, Generic[T]):
    def __init__(self, measure: Callable[[Any], T], results: list[T], progress: Progress) -> None:
        self.measure, self.results, self.progress = measure, results, progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.advance()

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.results.append(self.measure(model))
