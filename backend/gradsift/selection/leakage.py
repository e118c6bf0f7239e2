"""Leakage: picks that share text with the targets or an evaluation, found before anybody trains on them.

text/overlap.py defines what sharing means. An instruction template of 13 words that both sides use is flagged like any
other text, so the shared text is reported, and a person decides whether to drop the row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradsift.data.conversation import Conversation
from gradsift.data.pool import Row
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.runtime import atomic
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_file
from gradsift.runtime.progress import Progress
from gradsift.selection.picks import Picks, picked
from gradsift.text.overlap import RUN, SHORTEST, Example, Hit, Matcher

RULE = (
    f"A row is flagged where {RUN} words in a row, a whole turn, or a whole question of {SHORTEST} to {RUN - 1} words "
    "are the same (lower-cased; in scripts without spaces single characters)."
)
TARGETS = "targets"  # name of the target examples, beside the names of evaluation files
MOST_QUOTED = 1000  # flagged picks whose texts are quoted, from the best on
_BATCH = 1000  # picks compared at once

Hits = dict[int, tuple[tuple[Hit, ...], int]]  # pool row -> its hits, and the least number of further examples


@dataclass(frozen=True, slots=True)
class Leak:
    """A flagged pick: its hits, longest first. more: the least number of further examples it hits."""

    row: int
    rank: int
    id: str
    source: str
    dropped: bool
    hits: tuple[Hit, ...]
    more: int


@dataclass(frozen=True)
class Evaluation:
    """The examples that picks are compared with: first the targets, then those of `files` (file, sha256, examples)."""

    examples: list[Example]
    files: tuple[dict[str, Any], ...]

    @property
    def targets(self) -> int:
        """How many of the examples are targets."""
        return len(self.examples) - sum(part["examples"] for part in self.files)


@dataclass(frozen=True)
class Leakage:
    """The result of a check: the flagged picks in rank order, dropped or not, and what they were compared with."""

    against: Evaluation
    checked_rows: int
    leaks: tuple[Leak, ...]

    def summary(self) -> dict[str, Any]:
        """For the manifest: what was compared, under which rule, and how many flagged rows were kept or dropped."""
        dropped = sum(leak.dropped for leak in self.leaks)
        return {
            "rule": RULE,
            "targets": self.against.targets,
            "evaluation": list(self.against.files),
            "checked_rows": self.checked_rows,
            "flagged_rows": len(self.leaks) - dropped,
            "dropped_rows": dropped,
        }

    def to_json(self) -> str:
        """The content of leakage.json: the summary, and every flagged pick under `leaks`."""
        return atomic.json_text({**self.summary(), "leaks": [self._record(leak) for leak in self.leaks]})

    def _record(self, leak: Leak) -> dict[str, Any]:
        hits = []
        for hit in leak.hits:
            example, fields = self.against.examples[hit.example], asdict(hit)
            del fields["example"]
            hits.append({**fields, "file": example.file, "line": example.line, "id": example.id})
        return {**asdict(leak), "hits": hits}


def read_evaluation(targets: Sequence[Row], paths: Sequence[str | Path] = ()) -> Evaluation:
    """The targets, numbered from 1, and the examples of evaluation files in any format that targets may have.

    Of a record that is not a conversation, all texts in it count; of a text file without questions, every line.

    Raises:
        PoolError: a file is missing or cannot be read. UsageError: a file contains no text.
    """
    examples = [Example(TARGETS, number, row.id, _said(row.conversation)) for number, row in enumerate(targets, 1)]
    files = []
    for path in map(Path, paths):
        content = read_targets(path)
        own = [Example(path.name, row.line, row.id, _said(row.conversation)) for row in content.rows]
        own += [example for row in content.bad for example in _texts_in(path.name, row)]
        if not own:
            raise UsageError(f"{path} holds no text to compare with: name another file.")
        examples += own
        sha256 = hash_file(path) if path.is_file() else ""
        files.append({"file": path.name, "sha256": sha256, "examples": len(own)})
    return Evaluation(examples, tuple(files))


def find_leaks(
    store: Store, rows: np.ndarray, matcher: Matcher, progress: Progress | None = None, quote: bool = False
) -> Hits:
    """The pool rows among `rows` that share text with an example. quote: add the texts of both sides to the hits.

    Reads the texts in pool order, a thousand at a time.
    """
    hits: Hits = {}
    ordered = np.sort(np.asarray(rows, dtype=np.int64))
    for start in range(0, len(ordered), _BATCH):
        texts = store.texts(ordered[start : start + _BATCH])
        pairs = zip(texts["row"].tolist(), matcher.find([_said(c) for c in texts["conversation"]], quote), strict=True)
        hits |= {row: own for row, own in pairs if own[0]}
        if progress is not None:
            progress.advance(len(texts))
    return hits


def check_leaks(picks: Picks, against: Evaluation, drop: bool, progress: Progress) -> tuple[Picks, Leakage]:
    """Find the picks that leak; with `drop`, other rows take their places and are checked as well."""
    rows, choices = picks.traits.rows, picks.choices
    matcher, hits, checked = Matcher(against.examples), Hits(), np.zeros(len(rows), dtype=bool)
    while True:
        fresh = picks.positions[~checked[picks.positions]]
        checked[fresh] = True
        progress.stage("leaks", "Comparing the picks with the targets and evaluations", len(fresh), "rows")
        hits |= find_leaks(picks.store, rows[fresh], matcher, progress)
        leaking = [row for row in picks.rows.tolist() if row in hits]
        if not drop or not leaking:
            break
        accepted = tuple(row for row in choices.accepted if row not in hits)
        choices = choices.model_copy(update={"rejected": (*choices.rejected, *leaking), "accepted": accepted})
        picks = replace(picks, positions=picked(picks.ranking, picks.budget, choices, picks.traits))
    return picks, Leakage(against, int(checked.sum()), _leaks(picks, hits, set(leaking), matcher))


def _leaks(picks: Picks, hits: Hits, kept: set[int], matcher: Matcher) -> tuple[Leak, ...]:
    """The flagged rows in rank order, marked as dropped unless in `kept`; only the best ones' texts are quoted."""
    rows = np.array(list(hits), dtype=np.int64)
    ranks = picks.ranking.rank[np.searchsorted(picks.traits.rows, rows)]
    by_rank = np.argsort(ranks)
    rows, ranks = rows[by_rank], ranks[by_rank]
    quoted = {**hits, **find_leaks(picks.store, rows[:MOST_QUOTED], matcher, quote=True)}
    pool = picks.store.pool().loc[rows]
    lines = zip(rows.tolist(), ranks.tolist(), pool["id"], pool["source"], strict=True)
    return tuple(Leak(row, rank, id, source, row not in kept, *quoted[row]) for row, rank, id, source in lines)


def _said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.messages]


def _texts_in(file: str, row: Row) -> Iterator[Example]:
    """The texts to compare in a record that is not a conversation."""
    text = row.raw.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        for number, line in enumerate(text.split("\n"), row.line):
            if line.strip():
                yield Example(file, number, f"{file}:{number}", (("", line),))
        return
    texts = tuple(("", part) for part in _strings(value) if part.strip())
    if texts:
        yield Example(file, row.line, row.id, texts)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(part)
