"""A conversation as HTML: every turn with its role, long ones folded. All of its text is escaped here."""

from collections.abc import Sequence

from app.text import escape
from app.views.highlights import Marks, Span
from gradsift.data.conversation import Conversation, Message

FOLD = 320  # characters above which a conversation is folded
LONGEST = 12_000  # characters of one turn that go to the browser; the rest are counted
UNFOLDED = 60_000  # characters of a whole conversation that go to the browser
SHORT = 480  # characters of a turn in a folded conversation, more than fit its four lines
BEFORE = 60  # characters before the first search hit in a folded conversation
NOTHING = Marks()
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System", "tool": "Tool"}


def draw(conversation: Conversation, marks: Marks = NOTHING, most: int = UNFOLDED) -> str:
    """The conversation; a long one is folded to its first question and answer, or to the search hits.

    most: characters of the whole.
    """
    turns = conversation.messages
    if len(conversation.text) <= FOLD and conversation.text.count("\n") <= 8:
        return unfolded(conversation, marks)
    shown = [turn for turn in turns if turn.role != "system"][:2]
    shown = [turn for turn in turns if marks.first(turn.role, turn.text) >= 0][:2] or shown
    hidden = len(turns) - len(shown)
    short = "".join(_turn(turn.role, *_excerpt(turn, marks), marks) for turn in shown)
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
    shown, left, last = [], most, _last_answer(turns)
    for at, (role, text) in enumerate((turn.role, turn.text) for turn in turns):
        if left <= 0:
            rest = f"{len(turns) - at:,} more turns are not shown here; the export has them"
            shown.append(f'<p class="gs-small gs-dim">{rest}</p>')
            break
        kept = text[: min(LONGEST, left)]
        rest = f"\n[{len(text) - len(kept):,} more characters are not shown here; the export has them]"
        beginning = f'<span class="gs-given">{escape(prefix)}</span> ' if prefix and at == last else ""
        shown.append(_turn(role, beginning, kept, rest if len(kept) < len(text) else "", marks))
        left -= len(kept)
    return "".join(shown)


def _excerpt(turn: Message, marks: Marks) -> tuple[str, str, str]:
    """A turn's beginning, or the part around its first search hit if that is further on."""
    text = turn.text
    first = marks.first(turn.role, text)
    start = first - BEFORE if first > 2 * BEFORE else 0
    return "…" if start else "", text[start : start + SHORT], ""


def _turn(role: str, before: str, text: str, after: str, marks: Marks) -> str:
    kind = " gs-answer" if role == "assistant" else ""
    body = f'<p class="gs-said" dir="auto">{before}{_marked(text, marks.spans(role, text))}{after}</p>'
    return f'<div class="gs-turn{kind}"><span class="gs-role">{escape(_ROLES.get(role, role))}</span>{body}</div>'


def _marked(text: str, spans: Sequence[Span]) -> str:
    pieces, at = [], 0
    for start, end, kind in spans:
        pieces += [escape(text[at:start]), f'<mark class="{kind}">{escape(text[start:end])}</mark>']
        at = end
    return "".join([*pieces, escape(text[at:])])


def _last_answer(turns: Sequence[Message]) -> int:
    return max((at for at, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
