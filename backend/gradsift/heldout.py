"""Held-out examples that a fine-tuned model is measured on: their gold answers, and how an answer is judged.

Closed answers (a letter, yes or no, a number) count as right or wrong; spans count by the overlap of their words (F1,
the best over the golds), as in SQuAD. Long free answers are not judged: only their loss is.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradsift.baselines.bm25 import tokenize
from gradsift.pool import Row
from gradsift.targets import require_targets

LONGEST_SPAN = 30  # words: a longer gold is free text, which the overlap of words does not judge
_ARTICLES = {"a", "an", "the"}
_CLOSED_WORDS = {"yes", "no", "true", "false", "valid", "invalid"}
_LETTER = re.compile(r"\(?([A-Za-z])\)?(?![\w'’])")
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?")
_LEAD_IN = re.compile(r"^.*\banswer is:?", re.IGNORECASE | re.DOTALL)  # "So the answer is (B)."


@dataclass(frozen=True)
class HeldOut:
    """One held-out example. golds: the accepted answers, empty where the answer is too long to be judged."""

    row: Row
    golds: tuple[str, ...]

    @property
    def closed(self) -> bool:
        """Whether its answer is a letter, yes or no, or a number: right or wrong."""
        return bool(self.golds) and all(_closed(gold) for gold in self.golds)

    def judge(self, answer: str) -> float:
        """How good a generated answer is, 0 to 1: exact for closed answers, else the best F1 over the golds.

        Raises:
            ValueError: it has no gold to be judged by.
        """
        if not self.golds:
            raise ValueError(f"{self.row.id} has no short gold answer")
        if self.closed:
            return float(any(_answered(answer, gold) == _closed(gold) for gold in self.golds))
        return max(f1(answer, gold) for gold in self.golds)


def read_heldout(path: str | Path) -> list[HeldOut]:
    """Read held-out rows: any schema of targets; golds are `answers`, else `answer`, else the last assistant turn.

    Raises:
        TargetError: a row cannot be used, named by line. PoolError: the file cannot be read.
    """
    return [HeldOut(row, _golds(row)) for row in require_targets(path)]


def metric(examples: Sequence[HeldOut]) -> str | None:
    """What `judge` gives over these: `accuracy`, `f1`, or both in one mean; None where nothing can be judged."""
    kinds = {"accuracy" if example.closed else "f1" for example in examples if example.golds}
    return "+".join(sorted(kinds)) or None


def f1(answer: str, gold: str) -> float:
    """Harmonic mean of precision and recall of words, articles aside (SQuAD; scripts without spaces by character)."""
    said, due = _words(answer), _words(gold)
    common = sum((said & due).values())
    return 2 * common / (said.total() + due.total()) if common else float(not said and not due)


def _words(text: str) -> Counter[str]:
    return Counter(word for word in tokenize(text) if word not in _ARTICLES)


def _golds(row: Row) -> tuple[str, ...]:
    try:
        record = json.loads(row.raw)
    except ValueError:
        record = {}
    given = record.get("answers", record.get("answer")) if isinstance(record, dict) else None
    texts = given if isinstance(given, list) else [given]
    golds = tuple(text for text in texts if isinstance(text, str) and text.strip())
    golds = golds or (row.messages[-1][1],)
    return golds if all(len(tokenize(gold)) <= LONGEST_SPAN for gold in golds) else ()


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
    return f"{float(text.replace(',', '').replace('−', '-')):g}"
