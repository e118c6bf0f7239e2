"""What is marked in a page's texts: search hits and the words that BM25 matched. Draws nothing."""

import re
from dataclasses import dataclass

import numpy as np
import streamlit as st

from app.views.comparison import Column
from app.views.view import View
from gradsift.data.conversation import Conversation
from gradsift.scoring.bm25 import matched_words
from gradsift.scoring.choices import RankingChoices
from gradsift.text.search import terms
from gradsift.text.words import tokenize, word_spans

HIT, WORD = "gs-hit", "gs-word"  # kinds of marks, also their classes in the style sheet
LONGEST_TURN = 12_000  # characters of a turn that are searched for BM25's words

Span = tuple[int, int, str]  # start, end, kind


@dataclass(frozen=True, slots=True)
class Marks:
    """What to mark in one conversation.

    search: matches the searched words, in the turns of `role`; words: BM25's, as `tokenize` returns them.
    """

    search: re.Pattern[str] | None = None
    role: str = "any"
    words: tuple[str, ...] = ()

    def spans(self, role: str, text: str) -> list[Span]:
        """What to mark in a turn's text, in order; a search hit wins over an overlapping BM25 word."""
        search = self._search_in(role)
        hits = [(*hit.span(), HIT) for hit in search.finditer(text)] if search else []
        covered = np.zeros(len(text) + 1, dtype=bool)
        for start, end, _ in hits:
            covered[start:end] = True
        free = [(a, b, WORD) for a, b in word_spans(text, self.words) if not covered[a:b].any()] if self.words else []
        return sorted(hits + free)

    def first(self, role: str, text: str) -> int:
        """Index of the first search hit in a turn's text; -1 without one."""
        search = self._search_in(role)
        hit = search.search(text) if search else None
        return hit.start() if hit else -1

    def _search_in(self, role: str) -> re.Pattern[str] | None:
        return self.search if self.role in ("any", role) else None


def search_pattern(words: str) -> re.Pattern[str] | None:
    """A pattern for every term of a search, ignoring case; None without terms."""
    longest_first = sorted(terms(words), key=len, reverse=True)  # so that the longest wins if one begins another
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE) if longest_first else None


def matched(view: View, column: Column, at: int, conversation: Conversation) -> list[str]:
    """The words that give the row at a position its BM25 rank: those shared with the winning subtask's targets."""
    weights = _weights(str(view.scoring.path), view.choices.for_ranking, view)
    subtask = column.ranking.subtasks[int(column.ranking.best_subtask[at])]
    return matched_words((message.text[:LONGEST_TURN] for message in conversation.messages), weights.get(subtask, {}))


@st.cache_resource(max_entries=8, show_spinner=False)
def _weights(path: str, choices: RankingChoices, _view: View) -> dict[str, dict[str, float]]:
    """Subtask -> its targets' words that the pool has, with their weights."""
    weights, by_subtask = _view.scoring.word_weights, dict[str, dict[str, float]]()
    for target in _view.left.targets:
        words = {word for word in tokenize(target.conversation.text) if word in weights}
        by_subtask.setdefault(target.subtask, {}).update((word, weights[word]) for word in words)
    return by_subtask
