"""What counts as a word, and where words are in a text: for BM25, near-duplicates, shared text and F1."""

import re
from collections.abc import Container, Iterable

import regex

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(rf"(?=[\p{{L}}\p{{N}}])(?:[{_UNSPACED}]\p{{M}}*|(?:(?![{_UNSPACED}])[\p{{L}}\p{{N}}]\p{{M}}*)+)")
_ASCII_WORD = re.compile("[a-z0-9]+")  # the same words for ASCII text, in a third of the time


def tokenize(text: str) -> list[str]:
    """Lower-cased runs of letters, numbers and their marks; single characters of scripts written without spaces."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())


def distinct_words(texts: Iterable[str]) -> set[str]:
    """The set of all words of the texts."""
    return {word for text in texts for word in tokenize(text)}


def word_spans(text: str, words: Container[str]) -> list[tuple[int, int]]:
    """(start, end) of every occurrence in `text` of the words, which are in the form that `tokenize` gives."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters, such as İ, become longer
        return [match.span() for match in _WORD.finditer(text) if match[0].lower() in words]
    pattern = _ASCII_WORD if lowered.isascii() else _WORD
    return [match.span() for match in pattern.finditer(lowered) if match[0] in words]
