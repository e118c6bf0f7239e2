"""A rendered conversation: which characters are learned, which are given, what the template added and left out.

The learned characters of an assistant turn begin with its first own character and end with the turn's end token. What
the template writes before (a header, an empty `<think></think>`) is context, except where the turn begins with
reasoning or a tool call: the tag that opens it is what the model has to write. A template with {% generation %} says
itself what is learned.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

from gradsift.data.conversation import Conversation
from gradsift.data.tracked import NOWHERE, UNKNOWN, Run, Tracked
from gradsift.runtime.errors import GradsiftError

_THINK = r"<think>|</think>|\[THINK\]|\[/THINK\]|<\|channel>(?:thought)?|<channel\|>"
EMPTY_THINK = re.compile(r"\s*(?:<think>\s*</think>|\[THINK\]\s*\[/THINK\]|<\|channel>thought\s*<channel\|>)\s*")
OPENS_THINK = re.compile(r"<think|\[THINK\]|<\|channel>thought")
_TAGS = re.compile(rf"(?:\s|{_THINK})*")
_THOUGHT = re.compile(r"(?:</think>|\[/THINK\]|<channel\|>)\s*$")


class RenderError(GradsiftError):
    """The template cannot render a conversation, or not all of it."""


class Span(NamedTuple):
    """Characters start to stop, exclusive, that are learned, of the message `turn`."""

    start: int
    stop: int
    turn: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Characters start to stop, exclusive, of a rendering. turn: index of the message, -1 outside of all.

    kind: learned; given (the row's own text, not learned); template (added by the template).
    """

    start: int
    stop: int
    kind: Literal["learned", "given", "template"]
    turn: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Text of a message that the template leaves out on purpose, such as the reasoning of earlier turns."""

    turn: int
    part: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True)
class Rendering:
    """A conversation as the model sees it. stretches: cover `text`; spans: the learned ones, in order."""

    text: str
    spans: tuple[Span, ...]
    stretches: tuple[Stretch, ...]
    dropped: tuple[Dropped, ...]


class _Piece(NamedTuple):
    start: int
    stop: int
    run: Run


@dataclass(frozen=True, slots=True)
class Habits:
    """What a template does in every conversation.

    header: what it writes before a turn of the assistant, as far as all such turns share it; None if it asks for an
    answer in a way that no turn begins with. keeps_reasoning: whether it has a place for reasoning. closes: whether it
    writes an end token; if not, the token that begins the next turn is what stops the model (GLM). ends: the special
    tokens, the one that ends texts first.
    """

    header: str | None
    keeps_reasoning: bool
    closes: bool
    ends: tuple[str, ...]


def read_rendering(text: Tracked, conversation: Conversation, habits: Habits) -> Rendering:
    """Find what is learned in a rendered conversation.

    Raises:
        RenderError: the template leaves out or changes something that a turn says.
    """
    pieces, plain = list(_pieces(text._runs)), str.__getitem__(text, slice(None))
    dropped = tuple(_check(plain, pieces, conversation, habits))
    if any(piece.run.generation for piece in pieces):
        spans = list(_tagged(pieces, conversation))
    else:
        turns = (at for at, message in enumerate(conversation.messages) if message.is_learned)
        spans = [span for turn in turns for span in _Turn(plain, pieces, turn, conversation, habits).spans()]
    spans = [part for span in spans for part in _without_prefix(span, pieces)]
    spans.sort()
    return Rendering(plain, tuple(spans), tuple(_stretches(pieces, spans)), dropped)


def plain_text(text: str, end: str) -> Rendering:
    """A text without turns, all of it learned, with the token that ends it."""
    whole = text + end
    span = Span(0, len(whole), 0)
    return Rendering(whole, (span,), (Stretch(0, len(whole), "learned", 0),), ())


def _pieces(runs: Iterable[Run]) -> Iterator[_Piece]:
    start = 0
    for run in runs:
        if run.size:
            yield _Piece(start, start + run.size, run)
        start += run.size


def _is_learned(run: Run, turn: int) -> bool:
    return run.turn == turn and run.part not in ("", "prefix")


def _host(run: Run) -> int:
    return NOWHERE if run.host is None else run.host


@dataclass
class _Turn:
    """One learned turn of the assistant in a rendering."""

    text: str
    pieces: list[_Piece]
    turn: int
    conversation: Conversation
    habits: Habits

    def spans(self) -> list[Span]:
        """Its learned characters: one span, or several where the template puts a tool's results between."""
        own = [piece for piece in self.pieces if _is_learned(piece.run, self.turn)]
        hosted = [piece for piece in self.pieces if _host(piece.run) == self.turn]
        if own and not any(_host(piece.run) == self.turn for piece in own):
            hosted = self._around(own)
        if not hosted:
            return []
        own = [piece for piece in own if hosted[0].start <= piece.start < hosted[-1].stop]
        blocks = list(_blocks(hosted))
        start = self._start(own, *blocks[0])
        spans = [Span(max(start, first), last, self.turn) for first, last in blocks if last > start]
        if not spans:
            return []
        stop = self._stop(spans[-1].stop, own[-1].stop if own else start)
        spans[-1] = spans[-1]._replace(stop=stop)
        return [span for span in spans if span.start < span.stop]

    def _around(self, own: list[_Piece]) -> list[_Piece]:
        """The turn's pieces where the template's loops do not tell: its own, and the text after them to its end token.

        Raises:
            RenderError: no end token follows.
        """
        after = [piece for piece in self.pieces if piece.start >= own[-1].stop]
        rest = next((at for at, piece in enumerate(after) if piece.run.part), len(after))
        tail = self.text[own[-1].stop : after[rest - 1].stop] if rest else ""
        ends = [at + len(end) for end in self.habits.ends if (at := tail.find(end)) >= 0]
        if not ends and rest < len(after):
            raise RenderError("the chat template does not show where an answer ends: use another with --template")
        stop = own[-1].stop + (min(ends) if ends else len(tail))
        between = [piece for piece in self.pieces if own[0].start <= piece.start < own[-1].stop]
        return [*between, _Piece(own[-1].stop, stop, Run(stop - own[-1].stop))] if tail else between

    def _start(self, own: list[_Piece], first: int, last: int) -> int:
        """Where learning begins: at the first own character, or after the header if that is reasoning or a call."""
        if own and own[0].run.part == "content":
            return own[0].start
        limit = own[0].start if own else last
        opening, header = self.text[first:limit], self.habits.header
        if header is None:
            return limit if own else last
        at = opening.find(header)
        shared = at + len(header) if at >= 0 else _common(opening, header)
        if header and not shared:
            return limit if own else last
        empty = EMPTY_THINK.match(opening, shared)
        return first + (empty.end() if empty else shared)

    def _stop(self, stop: int, own: int) -> int:
        """The end of the turn's end token: the last character before the next turn's that is not blank."""
        after = [piece for piece in self.pieces if piece.start >= stop]
        if self.turn == len(self.conversation.messages) - 1:  # an end of text after the last turn
            outside = next(
                (at for at, piece in enumerate(after) if piece.run.part or _host(piece.run) >= 0), len(after)
            )
            stop = after[outside - 1].stop if outside else stop
        tail = self.text[own:stop].rstrip()
        if not tail and after:  # some templates write a turn's end token at the beginning of the next turn
            end = re.compile(r"\s*" + (re.escape(self.habits.ends[0]) if self.habits.closes else r"<[^<>\s]+>"))
            return match.end() if (match := end.match(self.text, stop, after[0].stop)) else own
        return own + len(tail)


def _tagged(pieces: list[_Piece], conversation: Conversation) -> Iterator[Span]:
    """The stretches inside of {% generation %}, but for turns that the row marks as not learned."""
    last = len(conversation.messages) - 1

    def turn(piece: _Piece) -> int:
        if not piece.run.generation:
            return NOWHERE
        host = _host(piece.run)
        return host if host >= 0 else piece.run.turn if piece.run.part else last

    for at, group in groupby(pieces, turn):
        members = list(group)
        if at != NOWHERE and conversation.messages[at].is_learned:
            yield Span(members[0].start, members[-1].stop, at)


def _without_prefix(span: Span, pieces: Iterable[_Piece]) -> Iterator[Span]:
    start = span.start
    for piece in pieces:
        if piece.run.part == "prefix" and start <= piece.start < span.stop:
            yield span._replace(start=start, stop=piece.start)
            start = piece.stop
    if start < span.stop:
        yield span._replace(start=start)


def _blocks(pieces: Sequence[_Piece]) -> Iterator[tuple[int, int]]:
    """Start and stop of the stretches of adjacent pieces."""
    start, stop = pieces[0].start, pieces[0].stop
    for piece in pieces[1:]:
        if piece.start != stop:
            yield start, stop
            start = piece.start
        stop = piece.stop
    yield start, stop


def _stretches(pieces: Iterable[_Piece], spans: Sequence[Span]) -> Iterator[Stretch]:
    kinds: list[Stretch] = []
    for piece in pieces:
        turn = piece.run.turn if piece.run.part else _host(piece.run)
        other: Literal["given", "template"] = "given" if piece.run.part else "template"
        at = piece.start
        for span in spans:
            if at < span.stop and span.start < piece.stop:
                if at < span.start:
                    kinds.append(Stretch(at, span.start, other, turn))
                kinds.append(Stretch(max(at, span.start), min(piece.stop, span.stop), "learned", span.turn))
                at = kinds[-1].stop
        if at < piece.stop:
            kinds.append(Stretch(at, piece.stop, other, turn))
    for (kind, turn), group in groupby(kinds, lambda stretch: (stretch.kind, stretch.turn)):
        members = list(group)
        yield Stretch(members[0].start, members[-1].stop, kind, turn)


def _check(text: str, pieces: list[_Piece], conversation: Conversation, habits: Habits) -> Iterator[Dropped]:
    """Compare every part of every message with what the template made of it; yields what it left out on purpose."""
    by_part: dict[tuple[int, str], list[_Piece]] = {}
    for piece in pieces:
        if piece.run.part:
            by_part.setdefault((piece.run.turn, piece.run.part), []).append(piece)
    if conversation.tools and (NOWHERE, "tools") not in by_part:
        raise RenderError("the chat template has no place for the row's tools: use another with --template")
    prefixed = conversation.last_answer if conversation.prefix else NOWHERE
    for turn, message in enumerate(conversation.messages):
        for at, call in enumerate(message.tool_calls):
            parts = [f"call {at}", *([f"arguments {at}"] if call.arguments.strip() not in ("", "{}") else [])]
            if any((turn, part) not in by_part for part in parts):
                raise RenderError(
                    f"the chat template leaves out a tool call: {call.name[:40]!r} in message {turn + 1}; use another "
                    "with --template"
                )
        if turn == prefixed and _missing(text, conversation.prefix, by_part.get((turn, "prefix"), []), turn):
            raise RenderError("the chat template does not keep the prefix at the start of the answer")
        for part, source in (("reasoning", message.reasoning), ("content", message.content)):
            found = by_part.get((turn, part), [])
            gaps = _missing(text, source, found, turn)
            yield from _gaps(gaps, turn, part, bool(found), conversation, habits)  # type: ignore[arg-type]


def _missing(text: str, source: str, found: Iterable[_Piece], turn: int) -> list[str]:
    """The stretches of a part that do not appear, but for blanks.

    Raises:
        RenderError: what appears is not what the part says.
    """
    seen = bytearray(len(source))
    for start, stop, run in found:
        if run.at == UNKNOWN:
            return []
        if text[start:stop] != source[run.at : run.at + run.size]:
            raise RenderError(f"the chat template changes what message {turn + 1} says: use another with --template")
        seen[run.at : run.at + run.size] = b"\1" * run.size
    gaps = (source[match.start() : match.end()] for match in re.finditer(rb"\0+", seen))
    return [gap for gap in gaps if gap.strip()]


def _gaps(
    gaps: list[str], turn: int, part: Literal["content", "reasoning"], present: bool, conversation: Conversation,
    habits: Habits,
) -> Iterator[Dropped]:  # fmt: skip
    message = conversation.messages[turn]
    for gap in gaps:
        if part == "reasoning":
            if not present and habits.keeps_reasoning:
                yield Dropped(turn, part, gap)
                continue
            if not present:
                raise RenderError("the chat template has no place for reasoning: use another with --template")
        elif message.role == "assistant" and _TAGS.fullmatch(gap):
            continue  # the template writes the tags of reasoning itself
        elif message.role == "assistant" and _THOUGHT.search(gap):
            yield Dropped(turn, "reasoning", gap)
            continue
        elif not message.is_learned if present else message.tool_calls:
            yield Dropped(turn, part, gap)
            continue
        what = "part of what" if present else "what"
        raise RenderError(
            f"the chat template leaves out {what} message {turn + 1} says: {gap[:40]!r}; use another with --template"
        )


def _common(a: str, b: str) -> int:
    """Length of what both begin with."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
