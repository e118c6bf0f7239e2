"""Held-out examples that a fine-tuned model is measured on: their gold answers, and how an answer is judged.

Closed answers (a letter, yes or no, a number) count as right or wrong, sought in what was written. So does what stands
in `answer`, the one right answer, which must be all that was written (BBH's sorted words and brackets). Other spans, as
in `answers`, count by the overlap of their words (F1, the best over the golds), as in SQuAD. Long free answers are not
judged: only their loss is.
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

LONGEST_SPAN = 30  # words: a longer gold is free text, which the overlap of words does not judge
_ARTICLES = {"a", "an", "the"}
_CLOSED_WORDS = {"yes", "no", "true", "false", "valid", "invalid"}
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?![\w'’])")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_LEAD_IN = re.compile(r"^.*\banswer is:?", re.IGNORECASE | re.DOTALL)  # "So the answer is (B)."


@dataclass(frozen=True)
class HeldOut:
    """One held-out example. golds: the accepted answers, empty where the answer is too long to be judged. exact: they
    stand in `answer`.
    """

    row: Row
    golds: tuple[str, ...]
    exact: bool = False

    @property
    def closed(self) -> bool:
        """Whether its answer is a letter, yes or no, or a number."""
        return bool(self.golds) and all(_closed(gold) for gold in self.golds)

    @property
    def metric(self) -> str:
        """`accuracy` where it is right or wrong, else `f1`."""
        return "accuracy" if self.closed or self.exact else "f1"

    def judge(self, answer: str) -> float:
        """How good a generated answer is, 0 to 1: right or wrong, else the best F1 over the golds.

        Raises:
            ValueError: it has no gold to be judged by.
        """
        if not self.golds:
            raise ValueError(f"{self.row.id} has no short gold answer")
        if self.closed:
            return float(any(_answered(answer, gold) == _closed(gold) for gold in self.golds))
        if self.exact:
            return float(any(_exact(answer, gold) for gold in self.golds))
        return max(f1(answer, gold) for gold in self.golds)


def read_heldout(path: str | Path) -> list[HeldOut]:
    """Read held-out rows: any schema of targets; golds are `answers`, else `answer`, else the last assistant turn.

    Raises:
        TargetError: a row cannot be used, named by line. PoolError: the file cannot be read.
    """
    return [HeldOut(row, *_golds(row)) for row in require_targets(path)]


def metric(examples: Sequence[HeldOut]) -> str | None:
    """What `judge` gives over these: `accuracy`, `f1`, or both in one mean; None where nothing can be judged."""
    kinds = {example.metric for example in examples if example.golds}
    return "+".join(sorted(kinds)) or None


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of words, articles aside (SQuAD; scripts without spaces by character); a
    gold without words, such as brackets, is right or wrong.
    """
    if not tokenize(gold):
        return float(_exact(answer, gold))
    said, due = Counter(_words(answer)), Counter(_words(gold))
    common = sum((said & due).values())
    return 2 * common / (said.total() + due.total()) if common else float(not said and not due)


def _exact(answer: str, gold: str) -> bool:
    """Whether the first line, after any "the answer is", has the gold's words in its order; or signs, where it has no
    words.
    """
    said = _LEAD_IN.sub("", answer).strip().partition("\n")[0]
    if tokenize(gold):
        return _words(said) == _words(gold)
    return "".join(said.split()) == "".join(gold.split())


def _words(text: str) -> list[str]:
    return [word for word in tokenize(text) if word not in _ARTICLES]


def _golds(row: Row) -> tuple[tuple[str, ...], bool]:
    """The golds, and whether they are of the field `answer`."""
    try:
        record = json.loads(row.raw)
    except ValueError:
        record = {}
    several, one = (_texts(record.get(name)) if isinstance(record, dict) else () for name in ("answers", "answer"))
    said = next(content for role, content in reversed(row.messages) if role == "assistant")
    golds = several or one or (said,)
    return (golds if all(len(tokenize(gold)) <= LONGEST_SPAN for gold in golds) else ()), bool(one and not several)


def _texts(given: Any) -> tuple[str, ...]:
    """A gold or several as text; numbers and booleans count as they are written."""
    texts = given if isinstance(given, list) else [given]
    return tuple(str(text) for text in texts if isinstance(text, str | int | float) and str(text).strip())


def _closed(gold: str) -> str:
    """The gold as it is compared, where it is a closed answer; else ""."""
    text = gold.strip().rstrip(".")
    if letter := _LETTER.fullmatch(text):
        return letter[1].upper()
    if _NUMBER.fullmatch(text):
        return _plain_number(text)
    return text.lower() if text.lower() in _CLOSED_WORDS else ""


def _answered(answer: str, gold: str) -> str:
    """What `answer` says in the gold's terms: its first letter, number or word, after any "the answer is"."""
    text = _LEAD_IN.sub("", answer).strip()
    form = gold.strip().rstrip(".")
    if _LETTER.fullmatch(form):
        found = _LETTER.match(text)
        return found[1].upper() if found else ""
    if _NUMBER.fullmatch(form):
        found = _NUMBER.search(text)
        return _plain_number(found[0]) if found else ""
    return next(iter(tokenize(text)), "")


def _plain_number(text: str) -> str:
    return str(Decimal(text.replace(",", "").replace("−", "-")).normalize() + 0)  # + 0: minus zero is zero
