"""Conversations -> token ids and a supervised mask: the one encoder for pool, targets and warmup (method, section 3).

A chat template renders the whole conversation once, and the text says where each of its characters comes from
(data/rendering.py). It is then tokenized as a whole: a token is supervised when its characters overlap what is learned,
so merges across a turn's boundary cannot shift the mask.
"""

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, compress, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from gradsift.data.conversation import Conversation, Message
from gradsift.data.rendering import (
    MARK,
    OPENS_THINK,
    Habits,
    RenderError,
    Rendering,
    Span,
    plain_text,
    read_rendering,
    shared_length,
)
from gradsift.data.template import TemplateSyntaxError, check_syntax, render
from gradsift.data.tracked import MESSAGE, NOWHERE, Run, Tracked, TrackedDict, join, origin, runs_of, track
from gradsift.runtime.errors import GradsiftError, UsageError
from gradsift.runtime.hashing import hash_json

TULU = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
RESERVED = ("messages", "tools", "documents", "add_generation_prompt")  # template variables that are not options

_PROBE = (
    "It's 2,024  kg\n\n\tof   naïve cafe\u0301 — „ÄÖÜ“; x==y;\r\n 1234567 "
    "Ελληνικά, русский, हिन्दी, বাংলা, 中文、日本語 한국어 👍🏽"
)
_ANSWER = Message("assistant", "Because.")  # of the short conversations that show a template's habits
_REASONING = ("reasoning_content", "thinking", "reasoning")  # names under which templates look for reasoning


class Refusal(RenderError):
    """The template raises an error."""


class TemplateError(GradsiftError):
    """The chat template is missing, or the tokenizer cannot be used with one."""


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


class _Form(NamedTuple):
    """How a message is handed to a template, since templates differ in what they take.

    objects: arguments of tool calls as objects, otherwise as JSON text. empty: the content of a turn that only calls
    tools. parts: contents as lists of parts, as templates of vision models want them.
    """

    objects: bool = True
    empty: str | None = ""
    parts: bool = False


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
        check_syntax(text)
    except TemplateSyntaxError as error:
        raise UsageError(f"--template {choice}: not a Jinja template: {error}.") from error
    return text


class Encoder:
    """Renders and tokenizes conversations with one tokenizer and one template.

    template: `chat` (the tokenizer's own), `tulu`, or a Jinja template's text. options: the template's keywords, such
    as `enable_thinking`. `fingerprint` hashes everything that determines the token ids: vocabulary, merges,
    normalization, template, options.
    """

    def __init__(self, tokenizer: Any, template: str, options: Mapping[str, Any] | None = None) -> None:
        if not tokenizer.is_fast:
            raise TemplateError(
                "The model's tokenizer has no fast version, and only fast ones report character offsets: "
                "choose another model."
            )
        self.tokenizer = tokenizer
        if template == "chat":
            _require_template(tokenizer)
        self._name = {"chat": "the model's chat template", "tulu": "the template tulu"}.get(template, "the template")
        self._given = {"chat": None, "tulu": _bos(tokenizer) + TULU}.get(template, template)
        self._options = dict(options or {})
        self._rules = copy.deepcopy(tokenizer.backend_tokenizer)  # nobody else pads or truncates with a copy
        self._rules.no_padding()
        self._rules.no_truncation()
        self.fingerprint = _fingerprint(self._rules, self._given or tokenizer.chat_template, self._options)
        self._rules.post_processor = None  # it adds no token here, but may trim blanks from the offsets

    def render(self, conversation: Conversation) -> Rendering:
        """The conversation's text, and which of its characters are learned.

        Raises:
            RenderError: the template rejects the conversation, or leaves out part of it.
        """
        if [message.role for message in conversation.messages] == ["text"]:
            return plain_text(conversation.messages[0].content, self.tokenizer.eos_token or "")
        return self._rendered(conversation)[0]

    def encode(self, conversation: Conversation, max_length: int | None = None) -> Encoded:
        """Tokenize one conversation, keeping its first `max_length` tokens.

        Raises:
            RenderError: see `render`.
        """
        rendering = self.render(conversation)
        tokens = self._rules.encode(rendering.text, add_special_tokens=False)
        supervised = _supervised(tokens.offsets, rendering.spans)
        ids, supervised = tokens.ids[:max_length], supervised[:max_length]
        n_answer = sum(supervised)
        return Encoded(ids, supervised, len(ids) - n_answer, n_answer, len(tokens) - len(ids))

    def pieces(self, conversation: Conversation, max_length: int | None = None) -> list[Piece]:
        """The text of `encode`'s supervised tokens, in order: joined, they spell the answers up to where they are cut.

        Raises:
            RenderError: see `render`.
        """
        rendering = self.render(conversation)
        text, spans = rendering.text, rendering.spans
        offsets = self._rules.encode(text, add_special_tokens=False).offsets
        supervised = _supervised(offsets, spans)[:max_length]
        stretches = _stretches(compress(offsets, supervised), spans)
        return [Piece(text[start:stop], spans[span].turn, n_tokens) for start, stop, span, n_tokens in stretches]

    def _rendered(self, conversation: Conversation) -> tuple[Rendering, _Form]:
        """The rendering in the first form that the template takes and keeps whole."""
        refusals: list[RenderError] = []
        for form in _forms(conversation):
            try:
                return read_rendering(self._apply(conversation, form), conversation, self._habits), form
            except Refusal as error:
                refusals.append(error)
            except RenderError as error:  # rendered, but not whole: closer to the cause than a refusal
                refusals.insert(len(refusals) if form.parts else 0, error)
        raise refusals[0]

    @cached_property
    def _habits(self) -> Habits:
        """What the template does in every conversation, found out by rendering four short ones."""
        question = Message("user", "Why?")
        asked, asking = self._probe(question), self._probe(question, asks=True)
        answered, thought = self._probe(question, _ANSWER), self._probe(question, replace(_ANSWER, reasoning="Hm."))
        header: str | None = _beyond(asking, asked) or _opening(answered)
        if header and (thinking := OPENS_THINK.search(header)):
            header = header[: thinking.start()]
        if header and not shared_length(header, _beyond(answered, asked)):
            header = None
        keeps = any(run.part == "reasoning" for run in runs_of(thought))
        ends = [self.tokenizer.eos_token, *sorted(self.tokenizer.all_special_tokens, key=len, reverse=True)]
        closing = answered.rpartition(_ANSWER.content)[2].strip()
        followed = self._probe(question, _ANSWER, question).rpartition(_ANSWER.content)[2]
        stops = bool(closing or not followed or MARK.match(followed))
        return Habits(self._name, header, keeps, closing, stops, tuple(end for end in ends if end))

    def _probe(self, *messages: Message, asks: bool = False) -> str:
        """The messages rendered, or nothing if the template refuses them."""
        for form in (_Form(), _Form(parts=True)):
            try:
                return self._apply(Conversation(messages), form, add_generation_prompt=asks)
            except RenderError:
                continue
        return ""

    def _apply(self, conversation: Conversation, form: _Form, add_generation_prompt: bool = False) -> Tracked:
        tools = [track(_tool(tool), NOWHERE, "tools") for tool in json.loads(conversation.tools or "[]")] or None
        values = {**self.tokenizer.special_tokens_map, "documents": None, **self._options, "tools": tools}
        try:
            template = self._given or self.tokenizer.get_chat_template(None, tools)
            messages = _messages(conversation, form)
            return render(template, messages, {**values, "add_generation_prompt": add_generation_prompt})
        except Exception as error:  # a template is a program: it may raise anything
            raise Refusal(f"{self._name} refuses it: {_clause(error)}") from error


def _beyond(longer: str, shorter: str) -> str:
    """The text of a rendering from the first piece on that another one does not have."""
    pieces, others = _texts(longer), _texts(shorter)
    return "".join(pieces[shared_length(pieces, others) :])


def _opening(answered: str) -> str:
    """What a template that asks for no answer writes in the assistant's turn before it says anything, if not blank."""
    turn = (piece for piece, run in zip(_texts(answered), _sized(answered), strict=True) if run.host == 1)
    text = "".join(piece for piece in takewhile(lambda piece: piece != _ANSWER.content, turn))
    return text if text.strip() else ""


def _texts(rendered: str) -> list[str]:
    runs = _sized(rendered)
    stops = accumulate(run.size for run in runs)
    return [str(rendered[stop - run.size : stop]) for run, stop in zip(runs, stops, strict=True)]


def _sized(rendered: str) -> list[Run]:
    return [run for run in runs_of(rendered) if run.size]


def _forms(conversation: Conversation) -> Iterator[_Form]:
    """The forms in which a conversation may be handed to a template, the usual one first."""
    calls = [call for message in conversation.messages for call in message.tool_calls]
    empty = any(message.tool_calls and not message.content for message in conversation.messages)
    for objects in (True, False) if calls else (True,):
        for content in ("", None) if empty else ("",):
            yield _Form(objects, content)
    yield _Form(parts=True)


def _messages(conversation: Conversation, form: _Form) -> list[TrackedDict]:
    """The messages as templates take them, every text marked with where it comes from."""
    prefixed = conversation.last_answer if conversation.prefix else NOWHERE
    return [
        _message(message, turn, form, conversation.prefix if turn == prefixed else "")
        for turn, message in enumerate(conversation.messages)
    ]


def _message(message: Message, turn: int, form: _Form, prefix: str) -> TrackedDict:
    content: Any = origin(message.content, turn, "content")
    if prefix:
        content = join((origin(f"{prefix} ", turn, "prefix"), content))
    if form.parts:
        content = [TrackedDict({"type": "text", "text": content}, turn, "content")]
    elif message.tool_calls and not content:
        content = form.empty
    value: dict[str, Any] = {"role": message.role, "content": content}
    if message.reasoning:
        value |= dict.fromkeys(_REASONING, origin(message.reasoning, turn, "reasoning"))
    if message.tool_calls:
        value["tool_calls"] = [_call(message, at, turn, form.objects) for at in range(len(message.tool_calls))]
    value |= {name: text for name, text in (("name", message.name), ("tool_call_id", message.call_id)) if text}
    return TrackedDict(value, turn, MESSAGE)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool as templates take it: some data sets leave out the object around the function."""
    return tool if "name" not in tool or "function" in tool else {"type": "function", "function": tool}


def _call(message: Message, at: int, turn: int, objects: bool) -> TrackedDict:
    call, part = message.tool_calls[at], f"call {at}"
    arguments = track(call.value if objects else call.arguments, turn, f"arguments {at}")
    function = TrackedDict({"name": origin(call.name, turn, part), "arguments": arguments}, turn, part)
    about = {"id": call.id} if call.id else {}
    return TrackedDict({**about, "type": "function", "function": function}, turn, part)


def _clause(error: Exception) -> str:
    """A template's error on one line, with the names of its types as its author knows them."""
    text = " ".join(str(error).split())[:300].rstrip(".")
    return re.sub(r"(gradsift\.data\.tracked\.)?Tracked(Dict)?", lambda m: "dict" if m[2] else "str", text)


def _require_template(tokenizer: Any) -> None:
    templates = tokenizer.chat_template
    if not templates:
        raise TemplateError("The model's tokenizer has no chat template: choose --template tulu or a Jinja file.")
    if isinstance(templates, Mapping) and "default" not in templates:
        raise TemplateError(
            f"The model's tokenizer has the chat templates {', '.join(templates)}, but none called default: save the "
            "one you want to a file and give it with --template."
        )


def _bos(tokenizer: Any) -> str:
    """The tokenizer's beginning-of-text token if it adds one: a template of ours must keep it."""
    first = tokenizer("a").input_ids[0]
    return "{{ bos_token }}" if tokenizer.bos_token and first == tokenizer.bos_token_id else ""


def _fingerprint(rules: Any, template: Any, options: Mapping[str, Any]) -> str:
    """Hash of the vocabulary, the template and the ids of a probe text that exercises all other rules.

    It does not depend on library versions.
    """
    parts = [sorted(rules.get_vocab().items()), rules.encode(_PROBE, add_special_tokens=False).ids, template]
    return hash_json([*parts, options] if options else parts)[:16]


def _supervised(offsets: list[tuple[int, int]], spans: Sequence[Span]) -> list[bool]:
    """For each token, whether it is learned: its characters overlap a span, and it is not the first token."""
    return [overlap and position > 0 for position, overlap in enumerate(_overlaps(offsets, spans))]


def _stretches(offsets: Iterable[tuple[int, int]], spans: Sequence[Span]) -> list[tuple[int, int, int, int]]:
    """(start, stop, span, tokens) of the supervised tokens, clipped to their span; tokens that share a character merge.

    Characters that belong to no token (some tokenizers drop blanks) go to the next token.
    """
    stretches: list[tuple[int, int, int, int]] = []
    for start, stop in offsets:
        span = next(index for index, (_, end, _) in enumerate(spans) if end > start)
        start, stop = max(start, spans[span].start), min(stop, spans[span].stop)
        previous = stretches[-1] if stretches and stretches[-1][2] == span else None
        if previous and start < previous[1]:
            stretches[-1] = (previous[0], max(stop, previous[1]), span, previous[3] + 1)
        else:
            stretches.append((previous[1] if previous else start, stop, span, 1))
    return stretches


def _overlaps(offsets: list[tuple[int, int]], spans: Sequence[Span]) -> list[bool]:
    """For each token, whether its characters overlap one of the (ordered, disjoint) spans."""
    supervised, current = [], 0
    for start, stop in offsets:
        while current < len(spans) and spans[current].stop <= start:
            current += 1
        supervised.append(current < len(spans) and stop > spans[current].start and stop > start)
    return supervised
