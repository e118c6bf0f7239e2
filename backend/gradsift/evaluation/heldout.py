"""Held-out examples to measure a fine-tuned model on: their gold answers, and how a generated answer is judged.

Closed answers (a letter, yes or no, a number) are right or wrong, and are looked for in the generated text. The field
`answer`, the one right answer, is right or wrong as well, but must be the whole text (BBH's sorted words and brackets).
Other spans, as in `answers`, are judged by the overlap of words (F1, the best over the golds), as in SQuAD. Long free
answers are not judged; only their loss counts.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from gradsift.data.pool import Row
from gradsift.data.targets import require_targets
from gradsift.text.words import tokenize

LONGEST_SPAN = 30  # words: a longer gold is free text, which word overlap cannot judge
_ARTICLES = {"a", "an", "the"}
_CLOSED_WORDS = {"yes", "no", "true", "false", "valid", "invalid"}
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?![\w'’])")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_LEAD_IN = re.compile(r"^.*\banswer is:?", re.IGNORECASE | re.DOTALL)  # "So the answer is (B)."


@dataclass(frozen=True)
class HeldOut:
    """One held-out example.

    golds: the accepted answers; empty if the answer is too long to judge. exact: whether they come from `answer`.
    """

    row: Row
    golds: tuple[str, ...]
    exact: bool = False

    @property
    def closed(self) -> bool:
        """Whether the answer is a letter, yes or no, or a number."""
        return bool(self.golds) and all(_closed(gold) for gold in self.golds)

    @property
    def metric(self) -> str:
        """`accuracy` if an answer is right or wrong, else `f1`."""
        return "accuracy" if self.closed or self.exact else "f1"

    def judge(self, answer: str) -> float:
        """The score of a generated answer, from 0 to 1: right or wrong, or the best F1 over the golds.

        Raises:
            ValueError: the example has no golds.
        """
        if not self.golds:
            raise ValueError(f"{self.row.id} has no short gold answer")
        if self.closed:
            return float(any(_closed_answer(answer, gold) == _closed(gold) for gold in self.golds))
        if self.exact:
            return float(any(_exact(answer, gold) for gold in self.golds))
        return max(f1(answer, gold) for gold in self.golds)


def read_heldout(path: str | Path) -> list[HeldOut]:
    """Read held-out rows in any schema of targets; golds are `answers`, else `answer`, else the last assistant turn.

    Raises:
        TargetError: a row cannot be used; the message names its line. PoolError: the file cannot be read.
    """
    return [HeldOut(row, *_golds(row)) for row in require_targets(path)]


def metric(examples: Sequence[HeldOut]) -> str | None:
    """What `judge` computes for these: `accuracy`, `f1`, or `accuracy+f1`; None if nothing can be judged."""
    kinds = {example.metric for example in examples if example.golds}
    return "+".join(sorted(kinds)) or None


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of words, without articles (SQuAD; characters in scripts without spaces).

    A gold without words, such as brackets, is right or wrong.
    """
    if not tokenize(gold):
        return float(_exact(answer, gold))
    words, gold_words = Counter(_words(answer)), Counter(_words(gold))
    common = sum((words & gold_words).values())
    return 2 * common / (words.total() + gold_words.total()) if common else float(not words and not gold_words)


def _exact(answer: str, gold: str) -> bool:
    """Whether the first line, after any "the answer is", equals the gold in words, or in signs if it has none."""
    line = _LEAD_IN.sub("", answer).strip().partition("\n")[0]
    if tokenize(gold):
        return _words(line) == _words(gold)
    return "".join(line.split()) == "".join(gold.split())


def _words(text: str) -> list[str]:
    return [word for word in tokenize(text) if word not in _ARTICLES]


def _golds(row: Row) -> tuple[tuple[str, ...], bool]:
    """The golds, and whether they come from the field `answer`."""
    try:
        record = json.loads(row.raw)
    except ValueError:
        record = {}
    several, one = (_texts(record.get(name)) if isinstance(record, dict) else () for name in ("answers", "answer"))
    turn = next(message.content for message in reversed(row.messages) if message.role == "assistant")
    golds = several or one or (turn,)
    return (golds if all(len(tokenize(gold)) <= LONGEST_SPAN for gold in golds) else ()), bool(one and not several)


def _texts(value: Any) -> tuple[str, ...]:
    """One or several golds as texts; numbers and booleans become text."""
    texts = value if isinstance(value, list) else [value]
    return tuple(str(text) for text in texts if isinstance(text, str | int | float) and str(text).strip())


def _closed(gold: str) -> str:
    """The gold in the form that is compared if it is a closed answer; else ""."""
    text = gold.strip().rstrip(".")
    if letter := _LETTER.fullmatch(text):
        return letter[1].upper()
    if _NUMBER.fullmatch(text):
        return _plain_number(text)
    return text.lower() if text.lower() in _CLOSED_WORDS else ""


def _closed_answer(answer: str, gold: str) -> str:
    """The answer in the gold's form: its first letter, number or word, after any "the answer is"."""
    text = _LEAD_IN.sub("", answer).strip()
    form = gold.strip().rstrip(".")
    if _LETTER.fullmatch(form):
        match = _LETTER.match(text)
        return match[1].upper() if match else ""
    if _NUMBER.fullmatch(form):
        match = _NUMBER.search(text)
        return _plain_number(match[0]) if match else ""
    return next(iter(tokenize(text)), "")


def _plain_number(text: str) -> str:
    return str(Decimal(text.replace(",", "").replace("−", "-")).normalize() + 0)  # + 0 turns minus zero into zero
