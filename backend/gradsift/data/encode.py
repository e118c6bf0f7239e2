"""Conversations -> token ids and a supervised mask: the one encoder for pool, targets and warmup (method, section 3).

A chat template renders the conversation, which is then tokenized as a whole. A token is supervised when its characters
overlap an assistant turn (end-of-turn token included), so merges across a turn's boundary cannot shift the mask.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import jinja2

from gradsift.data.conversation import Conversation
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.runtime.hashing import hash_json

TULU = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


_DATE = "{%- macro strftime_now(format) -%}26 Jul 2024{%- endmacro %}"  # the fallback in Llama's templates
_PROBE = (
    "It's 2,024  kg\n\n\tof   naïve cafe\u0301 — „ÄÖÜ“; x==y;\r\n 1234567 "
    "Ελληνικά, русский, हिन्दी, বাংলা, 中文、日本語 한국어 👍🏽"
)


class TemplateError(GradsiftError):
    """The chat template is missing, or the tokenizer cannot be used with one."""


class RenderError(GradsiftError):
    """The template cannot render a conversation, or its turns cannot be told apart in the rendering."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One tokenized conversation.

    ids: (T,) token ids, cut to the maximum length. supervised: (T,) True for tokens to learn; position 0 is never
    supervised, because nothing predicts it. n_prompt, n_answer: tokens kept of each. n_cut: tokens cut off.
    """

    ids: list[int]
    supervised: list[bool]
    n_prompt: int
    n_answer: int
    n_cut: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an answer: one supervised token, or several that share a character.

    text: as it appears in the rendered conversation. turn: index of its message. n_tokens: number of tokens in it.
    """

    text: str
    turn: int
    n_tokens: int


def read_template(choice: str) -> str:
    """`chat` and `tulu` as they are; otherwise the text of the Jinja file at `choice`, its syntax checked.

    Raises:
        UsageError: the file cannot be read, or is not a Jinja template.
    """
    if choice in ("chat", "tulu"):
        return choice
    try:
        text = Path(choice).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--template {choice}: neither chat, tulu nor a readable file ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--template {choice}: not UTF-8 text; save it as UTF-8.") from error
    try:
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise UsageError(f"--template {choice}: not a Jinja template: {error.message}, line {error.lineno}.") from error
    return text


class Encoder:
    """Renders and tokenizes conversations with one tokenizer and one template.

    template: `chat` (the tokenizer's own), `tulu`, or a Jinja template's text. options: keywords for it.
    `fingerprint` hashes everything that determines the token ids: vocabulary, merges, normalization, template, options.
    """

    def __init__(self, tokenizer: Any, template: str, options: Mapping[str, Any] = {}) -> None:
        if not tokenizer.is_fast:
            raise TemplateError(
                "The model's tokenizer has no fast version, and only fast ones report character offsets: "
                "choose another model."
            )
        if template == "chat" and not tokenizer.chat_template:
            raise TemplateError("The model's tokenizer has no chat template: choose --template tulu or a Jinja file.")
        self.tokenizer, self.options = tokenizer, dict(options)
        text = {"chat": None, "tulu": _bos(tokenizer) + TULU}.get(template, template)
        self.template = _dated(text, tokenizer.chat_template)
        self._rules = copy.deepcopy(tokenizer.backend_tokenizer)  # nobody else pads or truncates with a copy
        self._rules.no_padding()
        self._rules.no_truncation()
        self.fingerprint = _fingerprint(self._rules, self.template or tokenizer.chat_template, self.options)
        self._rules.post_processor = None  # it adds no token here, but may trim blanks from the offsets

    def render(self, conversation: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The conversation's text and the character spans (start, stop) to learn.

        prefix: put at the start of the last assistant turn, followed by one space; not part of the span.

        Raises:
            RenderError: the template rejects the conversation, or rewrites earlier turns as the conversation grows.
        """
        prefix = conversation.prefix
        turns = [{"role": message.role, "content": message.content} for message in conversation.messages]
        answers = [index for index, turn in enumerate(turns) if turn["role"] == "assistant"]
        if prefix and answers:
            turns[answers[-1]]["content"] = f"{prefix} {turns[answers[-1]]['content']}"
        text = self._apply(turns)
        spans = []
        for index in answers:
            start = len(self._opening(turns[:index], text))
            closed = self._apply(turns[: index + 1]).rstrip()  # with its end-of-turn token, not the line break after it
            if not text.startswith(closed) or len(closed) < start:
                raise RenderError("the chat template does not render the conversation turn by turn")
            lead = prefix + " " if prefix and index == answers[-1] else ""
            if lead and not text.startswith(lead, start):
                raise RenderError("the chat template does not keep the prefix at the start of the answer")
            spans.append((start + len(lead), len(closed)))
        return text, spans

    def encode(self, conversation: Conversation, max_length: int | None = None) -> Encoded:
        """Tokenize one conversation, keeping its first `max_length` tokens.

        Raises:
            RenderError: see `render`.
        """
        text, spans = self.render(conversation)
        tokens = self._rules.encode(text, add_special_tokens=False)
        supervised = _supervised(tokens.offsets, spans)
        ids, supervised = tokens.ids[:max_length], supervised[:max_length]
        n_answer = sum(supervised)
        return Encoded(ids, supervised, len(ids) - n_answer, n_answer, len(tokens) - len(ids))

    def pieces(self, conversation: Conversation, max_length: int | None = None) -> list[Piece]:
        """The text of `encode`'s supervised tokens, in order: joined, they spell the answers up to where they are cut.

        Raises:
            RenderError: see `render`.
        """
        text, spans = self.render(conversation)
        answers = [index for index, message in enumerate(conversation.messages) if message.role == "assistant"]
        offsets = self._rules.encode(text, add_special_tokens=False).offsets
        supervised = _supervised(offsets, spans)[:max_length]
        stretches = _stretches(compress(offsets, supervised), spans)
        return [Piece(text[start:stop], answers[span], n_tokens) for start, stop, span, n_tokens in stretches]

    def _opening(self, turns: list[dict], text: str) -> str:
        """The text before an assistant's first character: all earlier turns and this turn's header."""
        opening = self._apply(turns, add_generation_prompt=True)
        if not text.startswith(opening):
            raise RenderError("the chat template does not render the conversation turn by turn")
        return opening

    def _apply(self, turns: list[dict], add_generation_prompt: bool = False) -> str:
        if not turns and not add_generation_prompt:
            return ""
        try:  # a batch of one, because the opening of a conversation that begins with an answer has no turns
            return self.tokenizer.apply_chat_template(
                [turns],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.options,
            )[0]
        except Exception as error:  # a template is a program: it may raise anything
            raise RenderError(f"the chat template refuses it: {error}") from error


def _dated(template: str | None, own: Any) -> str | None:
    """The template with a fixed date in place of today's, so that a row is encoded the same way every day."""
    text = own if template is None else template
    return _DATE + text if isinstance(text, str) and "strftime_now" in text else template


def _bos(tokenizer: Any) -> str:
    """The tokenizer's beginning-of-text token if it adds one: a template of ours must keep it."""
    first = tokenizer("a").input_ids[0]
    return "{{ bos_token }}" if tokenizer.bos_token and first == tokenizer.bos_token_id else ""


def _fingerprint(rules: Any, template: str, options: dict[str, Any]) -> str:
    """Hash of the vocabulary, the template, its options and the ids of a probe text that exercises all other rules.

    It does not depend on library versions.
    """
    parts = [sorted(rules.get_vocab().items()), rules.encode(_PROBE, add_special_tokens=False).ids, template]
    parts += [options] if options else []
    return hash_json(parts)[:16]


def _supervised(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """For each token, whether it is learned: its characters overlap a span, and it is not the first token."""
    return [overlap and position > 0 for position, overlap in enumerate(_overlaps(offsets, spans))]


def _stretches(offsets: Iterable[tuple[int, int]], spans: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    """(start, stop, span, tokens) of the supervised tokens, clipped to their span; tokens that share a character merge.

    Characters that belong to no token (some tokenizers drop blanks) go to the next token.
    """
    stretches: list[tuple[int, int, int, int]] = []
    for start, stop in offsets:
        span = next(index for index, (_, end) in enumerate(spans) if end > start)
        start, stop = max(start, spans[span][0]), min(stop, spans[span][1])
        previous = stretches[-1] if stretches and stretches[-1][2] == span else None
        if previous and start < previous[1]:
            stretches[-1] = (previous[0], max(stop, previous[1]), span, previous[3] + 1)
        else:
            stretches.append((previous[1] if previous else start, stop, span, 1))
    return stretches


def _overlaps(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """For each token, whether its characters overlap one of the (ordered, disjoint) spans."""
    supervised, current = [], 0
    for start, stop in offsets:
        while current < len(spans) and spans[current][1] <= start:
            current += 1
        supervised.append(current < len(spans) and stop > spans[current][0] and stop > start)
    return supervised
