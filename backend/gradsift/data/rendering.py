"""A rendered conversation: which characters are learned, which are given, what the template added and left out.

The learned characters of an assistant turn begin with its first own character and end with the turn's end token. What
the template writes before (a header, an empty `<think></think>`) is context, except where the turn begins with
reasoning or a tool call: the tag that opens it is what the model has to write. A template with {% generation %} says
itself what is learned.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, NamedTuple

from gradsift.data.conversation import Conversation
from gradsift.data.tracked import NOWHERE, UNKNOWN, Run, Tracked
from gradsift.runtime.errors import GradsiftError

_THINK = r"<think>|</think>|\[THINK\]|\[/THINK\]|<\|channel>(?:thought)?|<channel\|>"
EMPTY_THINK = re.compile(r"\s*(?:<think>\s*</think>|\[THINK\]\s*\[/THINK\]|<\|channel>thought\s*<channel\|>)\s*")
OPENS_THINK = re.compile(r"<think|\[THINK\]|<\|channel>thought")
_BEGINS_THINK = re.compile(rf"(?:{OPENS_THINK.pattern})>?\s*\Z")
MARK = re.compile(r"\s*<[^<>\s]+>")  # the token that begins a turn
_TAGS = re.compile(rf"(?:\s|{_THINK})*")
_THOUGHT = re.compile(r"(?:</think>|\[/THINK\]|<channel\|>)\s*$")


class RenderError(GradsiftError):
    """The template cannot render a conversation, or not all of it."""


Kind = Literal["learned", "given", "template"]


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
    kind: Kind
    turn: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Text of a message that the template leaves out on purpose, such as the reasoning of earlier turns."""

    turn: int
    part: Literal["content", "reasoning"]
    text: str


class Piece(NamedTuple):
    """Characters start to stop, exclusive, of one origin."""

    start: int
    stop: int
    run: Run

    @property
    def host(self) -> int:
        """The message that the template was rendering."""
        return NOWHERE if self.run.host is None else self.run.host


@dataclass(frozen=True)
class Rendering:
    """A conversation as the model sees it. spans: what is learned, in order; pieces: cover `text`."""

    text: str
    spans: tuple[Span, ...]
    pieces: tuple[Piece, ...]
    dropped: tuple[Dropped, ...]

    @property
    def stretches(self) -> list[Stretch]:
        """The whole text in stretches that are learned, given or the template's."""
        cut: list[Stretch] = []
        spans = iter([*self.spans, Span(len(self.text), len(self.text), NOWHERE)])
        span = next(spans)
        for piece in self.pieces:
            turn = piece.run.turn if piece.run.part else piece.host
            at = piece.start
            while at < piece.stop:
                if span.stop <= at:
                    span = next(spans)
                    continue
                inside = span.start <= at
                stop = min(piece.stop, span.stop if inside else span.start)
                kind: Kind = "learned" if inside else "given" if piece.run.part else "template"
                cut.append(Stretch(at, stop, kind, span.turn if inside else turn))
                at = stop
        groups = [list(group) for _, group in groupby(cut, lambda stretch: (stretch.kind, stretch.turn))]
        return [replace(group[0], stop=group[-1].stop) for group in groups]


@dataclass(frozen=True, slots=True)
class Habits:
    """What a template does in every conversation. name: what reasons call it.

    header: what it writes before a turn of the assistant, as far as all such turns share it; None if it asks for an
    answer in a way that no turn begins with. keeps_reasoning: whether it has a place for reasoning. closing: what it
    writes after a last answer; if nothing, the token that begins the next turn is what stops the model (GLM). stops:
    whether there is either. ends: the special tokens, the one that ends texts first.
    """

    name: str
    header: str | None
    keeps_reasoning: bool
    closing: str
    stops: bool
    ends: tuple[str, ...]


def read_rendering(text: Tracked, conversation: Conversation, habits: Habits) -> Rendering:
    """Find what is learned in a rendered conversation.

    Raises:
        RenderError: the template leaves out or changes something that a turn says.
    """
    pieces, plain = tuple(_pieces(text._runs)), str.__getitem__(text, slice(None))
    dropped = tuple(_check(plain, pieces, conversation, habits))
    if any(piece.run.generation for piece in pieces):
        spans = list(_tagged(pieces, conversation))
    else:
        if not habits.stops:
            raise RenderError(f"{habits.name} writes no end token after an answer: use another with --template")
        layout = _Layout(plain, pieces, len(conversation.messages), habits)
        turns = (at for at, message in enumerate(conversation.messages) if message.is_learned)
        spans = sorted(span for turn in turns for span in layout.spans(turn))
    if conversation.prefix:
        spans = [part for span in spans for part in _without_prefix(span, pieces)]
    return Rendering(plain, tuple(spans), pieces, dropped)


def shared_length(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of characters, or texts, with which both begin."""
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


def plain_text(text: str, end: str) -> Rendering:
    """A text without turns, all of it learned, with the token that ends it."""
    whole = text + end
    return Rendering(whole, (Span(0, len(whole), 0),), (Piece(0, len(whole), Run(len(whole), 0, "content", 0)),), ())


def _pieces(runs: Iterable[Run]) -> Iterator[Piece]:
    start = 0
    for run in runs:
        if run.size:
            yield Piece(start, start + run.size, run)
        start += run.size


class _Layout:
    """Where the turns of a rendering lie.

    own: what each message says where the template renders that message; hosted: all that it writes for a message.
    """

    def __init__(self, text: str, pieces: Sequence[Piece], messages: int, habits: Habits) -> None:
        self.text, self.pieces, self.last, self.habits = text, pieces, messages - 1, habits
        self.own, self.hosted = defaultdict[int, list[Piece]](list), defaultdict[int, list[Piece]](list)
        for piece in pieces:
            self.hosted[piece.host].append(piece)
            if piece.run.part not in ("", "prefix"):
                self.own[piece.run.turn].append(piece)

    def spans(self, turn: int) -> list[Span]:
        """A turn's learned characters: one span, or several where the template puts a tool's results between."""
        own = self.own[turn]
        inside = [piece for piece in own if piece.host == turn]
        hosted = self.hosted[turn] if inside or not own else self._around(own)
        if not hosted:
            return []
        own = inside or own
        blocks = list(_blocks(hosted))
        start = self._start(own, *blocks[0])
        spans = [Span(max(start, first), last, turn) for first, last in blocks if last >= start]
        if spans:
            spans[-1] = spans[-1]._replace(stop=self._stop(turn, spans[-1].stop, own[-1].stop if own else start))
        self._require_whole(turn, spans)
        return [span for span in spans if span.start < span.stop]

    def _require_whole(self, turn: int, spans: list[Span]) -> None:
        """Raise `RenderError` if something that the turn says is not learned, but for what later turns quote of it."""
        for piece in self.own[turn]:
            inside = any(span.start <= piece.start and piece.stop <= span.stop for span in spans)
            if piece.host in (turn, NOWHERE) and not inside:
                raise RenderError(
                    f"{self.habits.name} writes message {turn + 1} in a way that does not show what is to be learned: "
                    "use another with --template"
                )

    def _around(self, own: list[Piece]) -> list[Piece]:
        """A turn's pieces where the template's loops do not tell: its own, and the text after them to its end token.

        Raises:
            RenderError: no end token follows.
        """
        rest = self._said(own[-1].stop)
        tail = self.text[own[-1].stop : rest]
        ends = [at + len(end) for end in self.habits.ends if (at := tail.find(end)) >= 0]
        if not ends and rest < len(self.text):
            raise RenderError(f"{self.habits.name} does not show where an answer ends: use another with --template")
        stop = own[-1].stop + (min(ends) if ends else len(tail))
        begin = self._header_before(own[0].start)
        between = [piece for piece in self._after(own[0].start) if piece.start < own[-1].stop]
        opening = Piece(begin, own[0].start, Run(own[0].start - begin))
        return [opening, *between, Piece(own[-1].stop, stop, Run(stop - own[-1].stop))]

    def _header_before(self, position: int) -> int:
        """Where the header begins that stands last before a position, after what earlier turns say."""
        before = self.pieces[: bisect_left(self.pieces, position, key=lambda piece: piece.start)]
        said = next((piece.stop for piece in reversed(before) if piece.run.part), 0)
        at = self.text.rfind(self.habits.header, said, position) if self.habits.header else -1
        return at if at >= 0 else position

    def _after(self, position: int) -> Sequence[Piece]:
        """The pieces that begin there or later."""
        return self.pieces[bisect_left(self.pieces, position, key=lambda piece: piece.start) :]

    def _said(self, position: int) -> int:
        """Where the next text of a message begins, there or later."""
        return next((piece.start for piece in self._after(position) if piece.run.part), len(self.text))

    def _start(self, own: list[Piece], first: int, last: int) -> int:
        """Where learning begins: at the first own character, or after the header if that is reasoning or a call."""
        limit = own[0].start if own else last
        if own and own[0].run.part == "content":
            tag = _BEGINS_THINK.search(self.text, first, limit)  # for reasoning that the content holds
            return tag.start() if tag else limit
        opening, header = self.text[first:limit], self.habits.header
        if header is None:
            return limit
        at = opening.find(header)
        shared = at + len(header) if at >= 0 else _other_header(opening, header)
        if shared is None:
            return limit
        empty = EMPTY_THINK.match(opening, shared)
        return first + (empty.end() if empty else shared)

    def _stop(self, turn: int, stop: int, own: int) -> int:
        """The end of the turn's end token: the last character before the next turn's that is not blank."""
        if turn == self.last:  # an end of text after the last turn
            after = self._after(stop)
            stop = next((piece.start for piece in after if piece.run.part or piece.host >= 0), len(self.text))
        tail = self.text[own:stop].rstrip()
        # Some templates write a turn's end token when they begin the next turn.
        if stop < len(self.text) and (not tail or not self.habits.closing):
            end = re.compile(r"\s*" + re.escape(self.habits.closing)) if self.habits.closing else MARK
            match = end.match(self.text, stop, self._said(stop))
            if match:
                return match.end()
        return own + self._ended(tail)

    def _ended(self, tail: str) -> int:
        """Where the end token in the text after a turn ends: some templates go on with the next turn's header."""
        if not self.habits.ends or tail.endswith(self.habits.ends):
            return len(tail)
        return max(at + len(end) if (at := tail.rfind(end)) >= 0 else 0 for end in self.habits.ends) or len(tail)


def _other_header(opening: str, header: str) -> int | None:
    """Length of an unusual header: up to the last blank or mark that both share, otherwise its first mark."""
    mark = re.search(r"[>\s](?=[^>\s]*\Z)", opening[: shared_length(opening, header)])
    mark = mark or re.match(r"<[^<>\s]+>\s*", opening)
    return mark.end() if mark else None


def _tagged(pieces: Sequence[Piece], conversation: Conversation) -> Iterator[Span]:
    """The stretches inside of {% generation %}, but for turns that the row marks as not learned."""
    last = len(conversation.messages) - 1

    for inside, group in groupby(pieces, lambda piece: piece.run.generation):
        block = list(group)
        if not inside:
            continue
        whose = next((piece.run.turn for piece in block if piece.run.part), last)
        turns = [piece.host if piece.host >= 0 else whose for piece in block]
        for turn, part in groupby(zip(turns, block, strict=True), lambda pair: pair[0]):
            members = [piece for _, piece in part]
            if conversation.messages[turn].is_learned:
                yield Span(members[0].start, members[-1].stop, turn)


def _without_prefix(span: Span, pieces: Iterable[Piece]) -> Iterator[Span]:
    start = span.start
    for piece in pieces:
        if piece.run.part == "prefix" and start <= piece.start < span.stop:
            yield span._replace(start=start, stop=piece.start)
            start = piece.stop
    if start < span.stop:
        yield span._replace(start=start)


def _blocks(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """Start and stop of the stretches of adjacent pieces."""
    start, stop = pieces[0].start, pieces[0].stop
    for piece in pieces[1:]:
        if piece.start != stop:
            yield start, stop
            start = piece.start
        stop = piece.stop
    yield start, stop


def _check(text: str, pieces: Sequence[Piece], conversation: Conversation, habits: Habits) -> Iterator[Dropped]:
    """Compare every part of every message with what the template made of it; yields what it left out on purpose."""
    by_part: dict[tuple[int, str], list[Piece]] = {}
    for piece in pieces:
        if piece.run.part:
            by_part.setdefault((piece.run.turn, piece.run.part), []).append(piece)
    if conversation.tools and (NOWHERE, "tools") not in by_part:
        raise RenderError(f"{habits.name} has no place for the row's tools: use another with --template")
    prefixed = conversation.last_answer if conversation.prefix else NOWHERE
    for turn, message in enumerate(conversation.messages):
        for at, call in enumerate(message.tool_calls):
            found, arguments = by_part.get((turn, f"call {at}"), []), (turn, f"arguments {at}") in by_part
            as_json = any(piece.run.at == UNKNOWN for piece in found)  # name and arguments at once
            if not found or not (arguments or as_json or call.arguments.strip() in ("", "{}")):
                raise RenderError(
                    f"{habits.name} leaves out a tool call: {call.name[:40]!r} in message {turn + 1}; use another "
                    "with --template"
                )
        if turn == prefixed and _missing(
            text, f"{conversation.prefix} ", by_part.get((turn, "prefix"), []), turn, habits
        ):
            raise RenderError(f"{habits.name} does not keep the prefix at the start of the answer")
        for part, source in (("reasoning", message.reasoning), ("content", message.content)):
            found = by_part.get((turn, part), [])
            gaps = _missing(text, source, found, turn, habits)
            yield from _gaps(gaps, turn, part, bool(found), conversation, habits)  # type: ignore[arg-type]


def _missing(text: str, source: str, found: Iterable[Piece], turn: int, habits: Habits) -> list[str]:
    """The stretches of a part that do not appear, but for blanks.

    Raises:
        RenderError: what appears is not what the part says.
    """
    seen = bytearray(len(source))
    for start, stop, run in found:
        if run.at == UNKNOWN:
            return []
        if text[start:stop] != source[run.at : run.at + run.size]:
            raise RenderError(f"{habits.name} changes what message {turn + 1} says: use another with --template")
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
                raise RenderError(f"{habits.name} has no place for reasoning: use another with --template")
        elif message.role == "assistant" and _TAGS.fullmatch(gap):
            continue  # the template writes the tags of reasoning itself
        elif message.role == "assistant" and _THOUGHT.search(gap):
            if message.is_learned and not habits.keeps_reasoning:
                raise RenderError(f"{habits.name} has no place for reasoning: use another with --template")
            yield Dropped(turn, "reasoning", gap)
            continue
        elif not message.is_learned if present else message.tool_calls:
            yield Dropped(turn, part, gap)
            continue
        what = "part of what" if present else "what"
        raise RenderError(
            f"{habits.name} leaves out {what} message {turn + 1} says: {gap[:40]!r}; use another with --template"
        )
