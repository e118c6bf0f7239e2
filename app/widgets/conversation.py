"""A conversation as HTML: every turn with its role and all that it holds, long ones folded. All text is escaped here.

A turn's parts are its reasoning, what it says, and its calls of tools; a tool's result is the turn of a tool. The tools
that the row offers stand above the turns, folded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.text import clip, escape, plural
from app.views.highlights import HIT, Marks, Span
from app.views.tools import laid_out, tools_of
from gradsift.data.conversation import Conversation, Message

FOLD = 320  # characters above which a conversation is folded
LONGEST = 12_000  # characters of one part of a turn that go to the browser; the rest are counted
UNFOLDED = 60_000  # characters of a whole conversation that go to the browser
SHORT = 480  # characters of a turn in a folded conversation, more than fit its four lines
BEFORE = 60  # characters before the first search hit in a folded conversation
LONG = 400  # characters of reasoning, a call or a result above which it is folded on its own
LINES = 8  # line breaks above which anything counts as long
PEEK = 70  # characters of a folded part beside its name
NOTHING = Marks()
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool", "text": "Text"}


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a turn. kind: thought, said, call or result. title: what it is, name: of the tool."""

    kind: str
    text: str
    title: str = ""
    name: str = ""


def draw(conversation: Conversation, marks: Marks = NOTHING, most: int = UNFOLDED) -> str:
    """The conversation; a long one is folded to its first question and answer, or to the search hits.

    most: characters of the whole.
    """
    turns = conversation.messages
    if not _is_long(conversation.text, FOLD):
        return unfolded(conversation, marks)
    shown = [turn for turn in turns if turn.role != "system"][:2]
    shown = [turn for turn in turns if marks.first(turn.role, turn.text) >= 0][:2] or shown
    hidden = len(turns) - len(shown)
    short = "".join(_short(turn, marks) for turn in shown)
    more = f"Show all {len(turns)} turns" if hidden > 0 else "Show all"
    return (
        f'<details class="gs-fold"><summary><div class="gs-short">{short}</div><span class="gs-more">{more}</span>'
        f'<span class="gs-less">Show less</span></summary>{unfolded(conversation, marks, most)}</details>'
    )


def unfolded(conversation: Conversation, marks: Marks = NOTHING, most: int = UNFOLDED) -> str:
    """The conversation unfolded, for a pane that scrolls; in a very long one, turns that do not fit are counted.

    Its prefix, the given beginning of the last answer, is set apart from what is learned.
    """
    turns, prefix = conversation.messages, conversation.prefix
    shown, left, last = [_tools(conversation.tools)], most, _last_answer(turns)
    for at, turn in enumerate(turns):
        if left <= 0:
            rest = f"{len(turns) - at:,} more turns are not shown here; the export has them"
            shown.append(f'<p class="gs-small gs-dim">{rest}</p>')
            break
        beginning = f'<span class="gs-given">{escape(prefix)}</span> ' if prefix and at == last else ""
        body = []
        for part in _parts(turn, said=bool(beginning)):
            kept = part.text[: min(LONGEST, max(left, 0))]
            body.append(_part(part, turn.role, beginning if part.kind == "said" else "", kept, marks))
            left -= len(kept)
        shown.append(_turn(turn, "".join(body)))
    return "".join(shown)


def _parts(turn: Message, said: bool = False) -> list[_Part]:
    """What the turn holds, in the order in which it was said. said: list what it says even if that is nothing."""
    thought = [_Part("thought", turn.reasoning, "Reasoning")] if turn.reasoning else []
    calls = [_Part("call", laid_out(call.arguments), "Calls", call.name) for call in turn.tool_calls]
    if turn.role == "tool":
        return [*thought, _Part("result", turn.content, "Result"), *calls]
    answer = [_Part("said", turn.content)] if said or turn.content or not (thought or calls) else []
    return [*thought, *answer, *calls]


def _part(part: _Part, role: str, before: str, kept: str, marks: Marks) -> str:
    """One part in full; reasoning, calls and results are folded if they are long and hold no search hit."""
    rest = len(part.text) - len(kept)
    after = f"\n[{rest:,} more characters are not shown here; the export has them]" if rest else ""
    spans = marks.spans(role, kept)
    code = " gs-code" if part.kind in ("call", "result") else ""
    body = f'<p class="gs-said{code}" dir="auto">{before}{_marked(kept, spans)}{after}</p>'
    if part.kind == "said" or (part.kind == "result" and not _is_long(part.text, LONG)):
        return body
    what = f'<span class="gs-what">{part.title}</span>{_named(part.name, marks.spans(role, part.name))}'
    if not _is_long(part.text, LONG):
        return f'<div class="gs-part gs-{part.kind}">{what}{body}</div>'
    shown = " open" if any(kind == HIT for *_, kind in spans) else ""
    peek = f'<span class="gs-peek" dir="auto">{escape(clip(part.text, PEEK))}</span>'
    summary = f"<summary>{what} {peek}</summary>"
    return f'<details class="gs-part gs-{part.kind}"{shown}>{summary}{body}</details>'


def _short(turn: Message, marks: Marks) -> str:
    """A turn in a folded conversation: the part with the first search hit, else what it says; others are named."""
    parts = _parts(turn)
    found = (part for part in parts for text in (part.text, part.name) if marks.first(turn.role, text) >= 0)
    best = (part for kind in ("said", "call") for part in parts if part.kind == kind)
    shown = next(found, None) or next(best, parts[0])
    first = marks.first(turn.role, shown.text)
    start = first - BEFORE if first > 2 * BEFORE else 0
    text = shown.text[start : start + SHORT]
    name = _named(shown.name, marks.spans(turn.role, shown.name))
    what = f'<span class="gs-what">{shown.title}{name}</span> ' if shown.kind in ("thought", "call") else ""
    before = what + ("…" if start else "")
    body = f'<p class="gs-said" dir="auto">{before}{_marked(text, marks.spans(turn.role, text))}</p>'
    return _turn(turn, body, _also([part for part in parts if part is not shown]))


def _also(parts: Sequence[_Part]) -> str:
    """What a turn holds beside the part that is shown: with reasoning, 2 tool calls."""
    calls = sum(part.kind == "call" for part in parts)
    texts = ["reasoning"] if any(part.kind == "thought" for part in parts) else []
    texts += ["an answer"] if any(part.kind == "said" for part in parts) else []
    texts += [plural(calls, "tool call")] if calls else []
    return f' <span class="gs-also">with {", ".join(texts)}</span>' if texts else ""


def _turn(turn: Message, body: str, also: str = "") -> str:
    """A turn: whose it is, whether it is kept from being learned, and its parts as HTML."""
    kind = " gs-answer" if turn.role == "assistant" else ""
    name = _named(turn.name, ())
    kept = ' <span class="gs-unlearned">not learned</span>' if turn.role == "assistant" and not turn.is_learned else ""
    role = f"{escape(_ROLES.get(turn.role, turn.role))}{name}{kept}{also}"
    return f'<div class="gs-turn{kind}"><span class="gs-role">{role}</span>{body}</div>'


def _tools(text: str) -> str:
    """The tools that a row offers, folded: their names, and inside their definitions."""
    tools = tools_of(text)
    if not tools:
        return ""
    names = ", ".join(name for name, _ in tools if name)
    left, inside = LONGEST, list[str]()
    for _, definition in tools:
        if left <= 0:
            inside.append(
                f'<p class="gs-small gs-dim">{plural(len(tools) - len(inside), "more tool")} not shown here</p>'
            )
            break
        kept = definition[:left]
        more = "…" if len(kept) < len(definition) else ""
        inside.append(f'<p class="gs-said gs-code" dir="auto">{escape(kept)}{more}</p>')
        left -= len(kept)
    title = plural(len(tools), "tool") if names else "Tools"
    peek = f'<span class="gs-peek">{escape(clip(names, 3 * PEEK))}</span>'
    summary = f'<summary><span class="gs-what">{title}</span> {peek}</summary>'
    return f'<details class="gs-part gs-tools">{summary}{"".join(inside)}</details>'


def _named(name: str, spans: Sequence[Span]) -> str:
    return f' <bdi class="gs-name">{_marked(name, spans)}</bdi>' if name else ""


def _marked(text: str, spans: Sequence[Span]) -> str:
    pieces, at = [], 0
    for start, end, kind in spans:
        pieces += [escape(text[at:start]), f'<mark class="{kind}">{escape(text[start:end])}</mark>']
        at = end
    return "".join([*pieces, escape(text[at:])])


def _is_long(text: str, most: int) -> bool:
    return len(text) > most or text.count("\n") > LINES


def _last_answer(turns: Sequence[Message]) -> int:
    return max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
