"""A pick as a card, and the head of a column of picks, as HTML; every text from the data is escaped.

A card shows what the row is (source, task), how this method and the others rate it (rank, score), and the conversation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app import theme
from app.text import escape, plural
from app.views.highlights import Marks
from app.widgets import conversation
from gradsift.data.conversation import Conversation
from gradsift.scoring.methods import METHODS

LONGEST = 4_000  # characters of a conversation in a card; a page has up to 120 cards
_WORDS = "words shared with the targets of the row's best subtask that count most in its BM25 score"
_SCORE = "score; the bar spans the pool's lowest to highest score"


@dataclass(frozen=True, slots=True)
class Card:
    """What a card shows. ranks: every compared method -> (rank, whether it picks the row)."""

    method: str
    rank: int
    score: float
    share: float
    ranks: Mapping[str, tuple[int, bool]]
    source: str
    task: str
    subtask: str
    content: Conversation
    foot: Sequence[str]
    marks: Marks = conversation.NOTHING


def draw(card: Card, sources: Sequence[str]) -> str:
    """The content of the card, as HTML; its frame and buttons are the board's."""
    picked = sum(inside for _, inside in card.ranks.values())
    top = (
        f'<div class="gs-top"><span class="gs-rank">{card.rank:,}</span>'
        f'<span class="gs-score" title="{_SCORE}">{number(card.score)}</span></div>'
        f'<div class="gs-bar"><i style="width:{100 * min(1.0, max(0.0, card.share)):.1f}%"></i></div>'
    )
    badges = [badge(card.source, sources)]
    if card.task and card.task != card.source:
        badges.append(f'<span class="gs-badge gs-plain">{escape(card.task)}</span>')
    if card.subtask:
        badges.append(
            f'<span class="gs-badge gs-plain" title="the subtask it serves best">for {escape(card.subtask)}</span>'
        )
    if not card.ranks[card.method][1]:
        badges.append('<span class="gs-badge gs-out">not picked</span>')
    elif len(card.ranks) > 1 and picked == 1:
        badges.append('<span class="gs-badge gs-only">only here</span>')
    if len(card.ranks) > 1 and picked == len(card.ranks):
        badges.append(f'<span class="gs-badge gs-all">in all {picked}</span>')
    others = "".join(_other(name, rank, inside) for name, (rank, inside) in card.ranks.items() if name != card.method)
    ranks = f'<div class="gs-ranks">{others}</div>' if others else ""
    words = ", ".join(card.marks.words)
    matched = f'<p class="gs-matched" title="{_WORDS}"><b>BM25 matched</b> {escape(words)}</p>' if words else ""
    return (
        f'{top}<div class="gs-badges">{"".join(badges)}</div>{ranks}'
        f"{conversation.draw(card.content, card.marks, LONGEST)}{matched}"
        f'<p class="gs-foot">{" · ".join(f"<bdi>{escape(part)}</bdi>" for part in card.foot)}</p>'
    )


def kind(card: Card) -> str:
    """The classes of a card's frame: its method's, and another if several methods pick the row."""
    shared = " gs-shared" if sum(inside for _, inside in card.ranks.values()) > 1 else ""
    return f"gs-card gs-m-{theme.css_name(card.method)}{shared}"


def head(
    method: str, picks: int, tokens: int, only: int, compared: int, shares: Mapping[str, int], sources: Sequence[str]
) -> str:
    """The head of a column, as HTML: the method, how much it picks, and from which sources."""
    what = METHODS[method]
    alone = f" · {only:,} only here" if compared > 1 else ""
    bars = "".join(
        f'<i class="gs-t-{theme.tint(s, list(sources))}" style="flex:{n}" title="{escape(s)}: {n:,}"></i>'
        for s, n in shares.items()
    )
    legend = "".join(badge(source, sources, f"{count:,}") for source, count in shares.items())
    mark = f'<span class="gs-mark" aria-hidden="true">{theme.look(method).mark}</span>'
    return (
        f'<div class="gs-head gs-m-{theme.css_name(method)}">'
        f'<h3 title="{escape(what.description)}">{mark} {escape(what.label)}</h3>'
        f"<p>{plural(picks, 'pick')} · {plural(tokens, 'token')}{alone}</p>"
        f'<div class="gs-share">{bars}</div><div class="gs-legend">{legend}</div></div>'
    )


def badge(source: str, sources: Sequence[str], after: str = "") -> str:
    """The source's badge, with a number `after` its name; right-to-left names do not affect what follows."""
    text = f"<bdi>{escape(source)}</bdi>" + (f" {escape(after)}" if after else "")
    return f'<span class="gs-badge gs-t-{theme.tint(source, list(sources))}">{text}</span>'


def number(score: float) -> str:
    """A score with its significant digits."""
    if score == 0 or 0.001 <= abs(score) < 1000:
        return f"{score:.4f}" if abs(score) < 1 else f"{score:,.2f}"
    return f"{score:.2e}"


def _other(method: str, rank: int, inside: bool) -> str:
    label = METHODS[method].label
    title = f"{label}: rank {rank:,}" + (", also picked" if inside else ", not picked")
    return (
        f'<span class="gs-m-{theme.css_name(method)}{" gs-in" if inside else ""}" title="{escape(title)}">'
        f'<span class="gs-mark" aria-hidden="true">{theme.look(method).mark}</span> {escape(label)} {rank:,}</span>'
    )
