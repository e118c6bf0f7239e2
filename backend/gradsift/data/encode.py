"""Conversations -> token ids and a supervised mask: the one encoder for pool, targets and warmup (method, section 3).

The conversation is rendered by a chat template, tokenized once as a whole, and a token is supervised when its character
span overlaps an assistant turn (its end-of-turn token included). Merges across the boundary therefore cannot shift it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.runtime.hashing import hash_json

Messages = Sequence[tuple[str, str]]

TULU = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro %}"  # what Llama's templates fall back to
_PROBE = (
    "It's 2,024  kg\n\n\tof   naïve cafe\u0301 — „ÄÖÜ“; x==y;\r\n 1234567 "
    "Ελληνικά, русский, हिन्दी, বাংলা, 中文、日本語 한국어 👍🏽"
)


class TemplateError(GradsiftError):
    """A chat template that is missing, cannot be read, or does not render a conversation turn by turn."""


class RenderError(GradsiftError):
    """One conversation that the template cannot render or whose turns cannot be told apart in the rendering."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenized conversation.

    ids: (T,) token ids, cut to the longest length allowed. supervised: (T,) True where the token is learned; position 0
    is never supervised (nothing predicts it). n_prompt and n_answer count the kept tokens; n_cut those that were cut.
    """

    ids: list[int]
    supervised: list[bool]
    n_prompt: int
    n_answer: int
    n_cut: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an answer: one supervised token, or the few that share a character.

    text: as it stands in the rendered conversation. turn: index of its message. n_tokens: how many tokens it holds.
    """

    text: str
    turn: int
    n_tokens: int


def read_template(choice: str) -> str:
    """`chat`, `tulu`, or the text of the Jinja file `choice` names, checked for syntax.

    Raises:
        UsageError: no such file, or it is not Jinja.
    """
    if choice in ("chat", "tulu"):
        return choice
    try:
        text = Path(choice).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--template {choice}: neither chat, tulu, nor a readable file ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--template {choice}: not UTF-8 text.") from error
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"--template {choice}: not a Jinja template: {error.message}, line {error.lineno}.") from error
    return text


class Encoder:
    """Renders and tokenizes conversations with one tokenizer and one template.

    template: `chat` (the tokenizer's own), `tulu`, or a Jinja template's text. `fingerprint` hashes everything that
    decides the token ids: vocabulary, merges, normalization, template.
    """

    def __init__(self, tokenizer: Any, template: str) -> None:
        if not tokenizer.is_fast:
            raise TemplateError("The model's tokenizer has no fast version, and only those tell character offsets.")
        if template == "chat" and not tokenizer.chat_template:
            raise TemplateError("The model's tokenizer has no chat template: choose --template tulu or a Jinja file.")
        self.tokenizer = tokenizer
        chosen = {"chat": None, "tulu": _bos(tokenizer) + TULU}.get(template, template)
        self.template = _dated(chosen, tokenizer.chat_template)
        self._rules = copy.deepcopy(tokenizer.backend_tokenizer)  # a copy that nobody else sets to pad or truncate
        self._rules.no_padding()
        self._rules.no_truncation()
        self.fingerprint = _fingerprint(self._rules, self.template or tokenizer.chat_template)
        self._rules.post_processor = None  # it adds no token here, but it may trim blanks off the offsets

    def render(self, messages: Messages, prefix: str = "") -> tuple[str, list[tuple[int, int]]]:
        """The conversation's text and the character spans (start, stop) of what is learned in it.

        prefix: given at the start of the last assistant turn, joined by one space, outside the span.

        Raises:
            RenderError: the template refuses the conversation, or rewrites earlier turns as it grows.
        """
        turns = [{"role": role, "content": content} for role, content in messages]
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        if prefix and answers:
            turns[answers[-1]]["content"] = f"{prefix} {turns[answers[-1]]['content']}"
        text = self._apply(turns)
        spans = []
        for index in answers:
            start = len(self._opening(turns[:index], text))
            closed = self._apply(turns[: index + 1]).rstrip()  # its end-of-turn token, not the line break after it
            if not text.startswith(closed) or len(closed) < start:
                raise RenderError("the chat template does not render the conversation turn by turn")
            given = prefix + " " if prefix and index == answers[-1] else ""
            if given and not text.startswith(given, start):
                raise RenderError("the chat template does not keep the prefix at the start of the answer")
            spans.append((start + len(given), len(closed)))
        return text, spans

    def encode(self, messages: Messages, prefix: str = "", max_length: int | None = None) -> Encoded:
        """Tokenize one conversation, keeping its first `max_length` tokens.

        Raises:
            RenderError: see `render`.
        """
        text, spans = self.render(messages, prefix)
        tokens = self._rules.encode(text, add_special_tokens=False)
        supervised = _supervised(tokens.offsets, spans)
        ids, whole = tokens.ids, len(tokens)
        ids, supervised = ids[:max_length], supervised[:max_length]
        n_answer = sum(supervised)
        return Encoded(ids, supervised, len(ids) - n_answer, n_answer, whole - len(ids))

    def pieces(self, messages: Messages, prefix: str = "", max_length: int | None = None) -> list[Piece]:
        """What the supervised tokens of `encode`, in their order, spell: end to end, the answers as far as kept.

        Raises:
            RenderError: see `render`.
        """
        text, spans = self.render(messages, prefix)
        answers = [index for index, (role, _) in enumerate(messages) if role == "assistant"]
        offsets = self._rules.encode(text, add_special_tokens=False).offsets
        supervised = _supervised(offsets, spans)[:max_length]
        learned = [offset for offset, taught in zip(offsets, supervised, strict=False) if taught]
        return [
            Piece(text[start:stop], answers[span], n_tokens)
            for start, stop, span, n_tokens in _stretches(learned, spans)
        ]

    def _opening(self, turns: list[dict], text: str) -> str:
        """What stands before an assistant's first character: everything earlier and the turn's own header."""
        opening = self._apply(turns, add_generation_prompt=True)
        if not text.startswith(opening):
            raise RenderError("the chat template does not render the conversation turn by turn")
        return opening

    def _apply(self, turns: list[dict], add_generation_prompt: bool = False) -> str:
        if not turns and not add_generation_prompt:
            return ""
        try:  # as a batch of one: a conversation that begins with an answer has an opening of no turns
            return self.tokenizer.apply_chat_template(
                [turns], chat_template=self.template, tokenize=False, add_generation_prompt=add_generation_prompt
            )[0]
        except Exception as error:  # a template is a program: it may raise anything
            raise RenderError(f"the chat template refuses it: {error}") from error


def _dated(template: str | None, own: Any) -> str | None:
    """The template with a fixed date where it prints today's: a row must not be encoded otherwise tomorrow."""
    text = own if template is None else template
    return _DATE + text if isinstance(text, str) and "strftime_now" in text else template


def _bos(tokenizer: Any) -> str:
    """The tokenizer's own first token, for a model that was trained with one: a template of ours must not lose it."""
    first = tokenizer("a").input_ids[0]
    return "{{ bos_token }}" if tokenizer.bos_token and first == tokenizer.bos_token_id else ""


def _fingerprint(rules: Any, template: str) -> str:
    """Vocabulary, template, and what becomes of a text that exercises the rest; library versions leave it alone."""
    parts = [sorted(rules.get_vocab().items()), rules.encode(_PROBE, add_special_tokens=False).ids, template]
    return hash_json(parts)[:16]


def _supervised(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """For each token, whether it is learned: its characters overlap a span, and something comes before it."""
    return [taught and position > 0 for position, taught in enumerate(_overlaps(offsets, spans))]


def _stretches(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(start, stop, span, tokens) of supervised tokens, cut to their span; those that share a character are one.

    Characters that belong to no token (some tokenizers drop blanks) go with the token after them.
    """
    found: list[tuple[int, int, int, int]] = []
    for start, stop in offsets:
        span = next(index for index, (_, end) in enumerate(spans) if end > start)
        start, stop = max(start, spans[span][0]), min(stop, spans[span][1])
        before = found[-1] if found and found[-1][2] == span else None
        if before and start < before[1]:
            found[-1] = (before[0], max(stop, before[1]), span, before[3] + 1)
        else:
            found.append((before[1] if before else start, stop, span, 1))
    return found


def _overlaps(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """For each token, whether its characters overlap one of the (ordered, disjoint) spans."""
    supervised, current = [], 0
    for start, stop in offsets:
        while current < len(spans) and spans[current][1] <= start:
            current += 1
        supervised.append(current < len(spans) and stop > spans[current][0] and stop > start)
    return supervised
