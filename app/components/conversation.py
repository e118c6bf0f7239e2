"""A conversation as HTML: every turn by its role, long ones folded. All text is escaped here and nowhere else."""

from collections.abc import Sequence

from app.components.text import escape

FOLD = 320  # characters above which a conversation is folded to its first lines
LONGEST = 12_000  # characters of one turn that go to the browser; the rest is counted in words
UNFOLDED = 60_000  # characters of a whole conversation that go to the browser
_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}

Turns = Sequence[tuple[str, str]]


def draw(turns: Turns, prefix: str = "") -> str:
    """The conversation; folded to its first question and answer when long.

    prefix: the given beginning of the last answer, shown apart from what is learned.
    """
    whole = "".join(
        _turn(role, text, prefix if at == _last_answer(turns) else "") for at, (role, text) in enumerate(turns)
    )
    if sum(len(text) for _, text in turns) <= FOLD and sum(text.count("\n") for _, text in turns) <= 8:
        return whole
    shown = [turn for turn in turns if turn[0] != "system"][:2]
    hidden = len(turns) - len(shown)
    short = "".join(_turn(role, text[:900], "") for role, text in shown)
    more = f"Show all {len(turns)} turns" if hidden > 0 else "Show all"
    return (
        f'<details class="gs-fold"><summary><div class="gs-short">{short}</div><span class="gs-more">{more}</span>'
        f'<span class="gs-less">Fold</span></summary>{whole}</details>'
    )


def unfolded(turns: Turns, prefix: str = "") -> str:
    """The conversation unfolded, for a pane that scrolls; of a very long one the turns that fit, the rest counted."""
    shown, left = [], UNFOLDED
    for at, (role, text) in enumerate(turns):
        if left <= 0:
            rest = f"{len(turns) - at:,} more turns are not shown here; the export holds them"
            shown.append(f'<p class="gs-small gs-dim">{rest}</p>')
            break
        shown.append(_turn(role, text, prefix if at == _last_answer(turns) else ""))
        left -= min(len(text), LONGEST)
    return "".join(shown)


def _turn(role: str, text: str, prefix: str) -> str:
    kept = text[:LONGEST]
    rest = (
        f"\n[{len(text) - LONGEST:,} more characters are not shown here; the export holds them]"
        if len(text) > LONGEST
        else ""
    )
    given = f'<span class="gs-given">{escape(prefix)}</span> ' if prefix else ""
    kind = " gs-answer" if role == "assistant" else ""
    name = _ROLES.get(role, role)
    said = f'<p class="gs-said" dir="auto">{given}{escape(kept)}{escape(rest)}</p>'
    return f'<div class="gs-turn{kind}"><span class="gs-role">{escape(name)}</span>{said}</div>'


def _last_answer(turns: Turns) -> int:
    return max((at for at, (role, _) in enumerate(turns) if role == "assistant"), default=-1)
