"""What is learned of a conversation, as HTML: its rendering with marks, what the template left out, its tokens.

All text of the data and of the template is escaped here.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from app.text import clip, escape
from gradsift.data.masks import Masked
from gradsift.data.rendering import Stretch

LONGEST = 20_000  # characters of a rendering that go to the browser; the rest are counted
DROPPED = 400  # characters of a text that the template left out
FOLD = {
    "template": 480,
    "given": 1200,
}  # characters above which the middle of a piece is folded
ENDS = 100  # characters that a folded piece shows at its beginning and its end
_NAMES = {"learned": "learned", "given": "context", "template": "added by the template"}
_TAGS = {"learned": "mark", "given": "span", "template": "span"}


def legend() -> str:
    """What the marks mean, as HTML."""
    keys = [_marked(kind, name) for kind, name in _NAMES.items()]
    return f'<p class="gs-mask-legend">{" ".join(keys)} <s class="gs-dropped">left out by the template</s></p>'


def draw(masked: Masked, title: str = "") -> str:
    """A conversation as the model sees it, as HTML. title: what it is; text from data, escaped here."""
    text = masked.rendering.text
    rest = f"\n[{len(text) - LONGEST:,} more characters are not shown here]" if len(text) > LONGEST else ""
    body = "".join(_folded(kind, part) for kind, part in _pieces(text, masked.rendering.stretches))
    head = f'<p class="gs-small"><b dir="auto">{escape(title)}</b></p>' if title else ""
    return (
        f'<div class="gs-mask">{head}<div class="gs-said gs-code" dir="auto">{body}{rest}</div>'
        f'{"".join(_left_out(masked))}<p class="gs-small gs-dim">{_tokens(masked)}</p></div>'
    )


def _pieces(text: str, stretches: Sequence[Stretch]) -> Iterator[tuple[str, str]]:
    """The rendering's pieces by kind; neighbours of one kind are one."""
    for kind, group in groupby(stretches, lambda stretch: stretch.kind):
        members = list(group)
        if members[0].start < LONGEST:
            yield kind, text[members[0].start : min(members[-1].stop, LONGEST)]


def _folded(kind: str, text: str) -> str:
    """A piece, the middle of a long one folded unless it is learned."""
    if len(text) <= FOLD.get(kind, LONGEST):
        return _marked(kind, text)
    middle = text[ENDS:-ENDS]
    return (
        f"{_marked(kind, text[:ENDS])}<details class='gs-skip'><summary>… {len(middle):,} more characters</summary>"
        f"{_marked(kind, middle)}</details>{_marked(kind, text[-ENDS:])}"
    )


def _marked(kind: str, text: str) -> str:
    tag = _TAGS[kind]
    return f'<{tag} class="gs-{kind}">{escape(text)}</{tag}>'


def _left_out(masked: Masked) -> Iterator[str]:
    for dropped in masked.rendering.dropped:
        role = masked.conversation.messages[dropped.turn].role
        where = f"Left out by the template: the {dropped.part} of message {dropped.turn + 1}, {escape(role)}"
        text = escape(clip(dropped.text, DROPPED))
        yield f'<p class="gs-small gs-dim">{where}: <s class="gs-dropped" dir="auto">{text}</s></p>'


def _tokens(masked: Masked) -> str:
    cut = f"; {masked.cut:,} more are cut off" if masked.cut else ""
    own = f"{masked.template:,} of them the template’s own"
    return f"Tokens: <b>{masked.learned:,}</b> learned, {masked.prompt:,} in the prompt ({own}){cut}."
