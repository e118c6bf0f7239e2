"""The selection report: one HTML file that shows what was selected, from what and how, for a paper or a colleague.

It opens offline and prints well: no script, no remote style, font or image, and a Content-Security-Policy that forbids
all requests. Everything that comes from data is escaped; control characters and those that change the direction of text
are shown as codes.
"""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradsift.data.conversation import Conversation, Message
from gradsift.export import report_figures as figures
from gradsift.export.svg import text_of
from gradsift.scoring.methods import get_method, look
from gradsift.selection.leakage import TARGETS, Leak, Leakage
from gradsift.selection.picks import Pick, Picks
from gradsift.text.overlap import Quote

TOP, SAMPLED, TARGETS_SHOWN, LEAKS_SHOWN = 10, 10, 5, 20
_FOLDED = 400  # characters of a part from which on it is folded
_MOST_NAMES = 20  # in a list in the settings
_SECURITY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{security}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
:root {{ --m-light: {light}; --m-dark: {dark}; }}
{style}</style>
</head>
<body>
<main>
{body}
<footer>Made with gradsift. This file works offline and makes no network requests.</footer>
</main>
</body>
</html>
"""


def render(picks: Picks, leakage: Leakage, manifest: Mapping[str, Any]) -> str:
    """The whole report. leakage: of these picks. manifest: of the finished export, with `data` and `command`.

    Reads the pool, the metrics and the text of twenty picks; the size of the report does not grow with the pool.
    """
    method = get_method(picks.method)
    colors = look(method.name)
    sections = [
        _opening(picks, leakage),
        figures.sources(picks),
        figures.lengths(picks),
        figures.scores(picks),
        figures.subtasks(picks),
        figures.overlap(picks),
        figures.norms(picks),
        _examples(picks),
        _targets(picks),
        _leakage(leakage),
        _settings(picks, manifest),
    ]
    return _PAGE.format(
        security=_SECURITY,
        title=f"Selection report: {_rows(len(picks))} by {method.label}",
        light=colors.light,
        dark=colors.dark,
        style=Path(__file__).with_name("report.css").read_text(encoding="utf-8"),
        body="\n".join(section for section in sections if section),
    )


def _opening(picks: Picks, leakage: Leakage) -> str:
    method, traits, manifest = get_method(picks.method), picks.traits, picks.store.manifest
    count = len(picks)
    cells = {
        "rows picked": f"{count:,}",
        "of scored rows": f"{count / len(traits.rows):.2%}",
        "tokens": f"{picks.tokens:,}",
        f"of {len(np.unique(traits.source)):,} sources": f"{len(np.unique(traits.source[picks.positions])):,}",
        "target examples": f"{len(picks.scoring.targets):,}",
        "rows that leak": f"{leakage.summary()['flagged_rows']:,}",
    }
    figures_html = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in cells.items())
    return (
        f'<h1><span class="mark-of">{look(method.name).mark}</span> {_rows(count)} selected by '
        f"{html.escape(method.label)}</h1>"
        f'<p class="lead">A budget of {picks.budget} from a pool of {_rows(manifest.rows)}, with the model '
        f"{text_of(Path(manifest.config.model).name, 200)}. {html.escape(method.label)}: "
        f"{html.escape(method.description)}.</p>"
        f'<div class="figures">{figures_html}</div>'
    )


def _examples(picks: Picks) -> str:
    """The best picks and a seeded sample of the others, with their text."""
    rest = picks.positions[TOP:]
    sample = np.sort(np.random.default_rng(0).permutation(len(rest))[:SAMPLED])
    shown = list(picks.read(np.concatenate([picks.positions[:TOP], rest[sample]])))
    best = f"<h2>Examples</h2><h3>The best {min(TOP, len(picks))}</h3>{_cards(shown[:TOP])}"
    if not len(rest):
        return best
    return f"{best}<h3>{len(sample)} of the other {len(rest):,}, drawn at random</h3>{_cards(shown[TOP:])}"


def _cards(picks: Iterable[Pick]) -> str:
    cards = []
    for pick in picks:
        parts = [f"score {pick.score:.4g}", text_of(pick.source, 80), text_of(pick.id, 80)]
        parts += [f"{pick.tokens:,} tokens"] + [f"for {text_of(pick.best_subtask, 80)}"] * bool(pick.best_subtask)
        names = "".join(f"<span>{part}</span>" for part in parts)
        cards.append(
            f'<div class="example"><header><b>{pick.rank:,}</b>{names}</header>{_turns(pick.conversation)}</div>'
        )
    return "".join(cards)


def _turns(conversation: Conversation) -> str:
    """The turns with what they hold: tools that the row offers, reasoning, calls and results, each named as such."""
    tools = _part("tools", conversation.tools, folded=True) if conversation.tools else ""
    given = f'<p class="note">The last answer starts with {text_of(conversation.prefix, 200)}, which is given.</p>'
    return tools + "".join(map(_turn, conversation.messages)) + (given if conversation.prefix else "")


def _turn(message: Message) -> str:
    names = [html.escape(message.role), *([text_of(message.name, 80)] if message.name else [])]
    names += ["not learned"] if message.role == "assistant" and not message.is_learned else []
    parts = [_part("reasoning", message.reasoning)] if message.reasoning else []
    if message.role == "tool":
        parts.append(_part("result", message.content))
    elif message.content or not (parts or message.tool_calls):
        parts.append(f'<p class="said" dir="auto">{text_of(message.content)}</p>')
    parts += [_part(f"call of {call.name}", call.arguments) for call in message.tool_calls]
    return f'<div class="turn {html.escape(message.role)}"><b>{" · ".join(names)}</b>{"".join(parts)}</div>'


def _part(name: str, text: str, folded: bool = False) -> str:
    """A part of a turn that is no answer, under its name; folded when long."""
    shown = " open" if not folded and len(text) <= _FOLDED else ""
    said = f'<p class="said" dir="auto">{text_of(text)}</p>'
    return f'<details class="part"{shown}><summary>{text_of(name, 80)}</summary>{said}</details>'


def _targets(picks: Picks) -> str:
    targets = picks.scoring.targets
    cards = [
        f'<div class="example"><header><b>{number}</b><span>{text_of(row.subtask, 80)}</span></header>'
        f"{_turns(row.conversation)}</div>"
        for number, row in enumerate(targets[:TARGETS_SHOWN], 1)
    ]
    more = len(targets) - len(cards)
    rest = f'<p class="note">and {more:,} more</p>' if more else ""
    return f"<h2>What the rows were selected for</h2>{''.join(cards)}{rest}"


def _leakage(leakage: Leakage) -> str:
    summary = leakage.summary()
    against = [f"the {summary['targets']:,} target examples"]
    against += [f"{part['examples']:,} of {text_of(part['file'], 100)}" for part in summary["evaluation"]]
    flagged, dropped = summary["flagged_rows"], summary["dropped_rows"]
    result = f"{_rows(flagged)} of the selection {'is' if flagged == 1 else 'are'} flagged." if flagged else ""
    result += f" {_rows(dropped)} {'was' if dropped == 1 else 'were'} dropped because of it." if dropped else ""
    checked = f"{_rows(summary['checked_rows'])} were compared with {' and '.join(against)}."
    kept = [leak for leak in leakage.leaks if not leak.dropped]
    cards = "".join(_leak(leakage, leak) for leak in kept[:LEAKS_SHOWN])
    more = len(kept) - LEAKS_SHOWN
    rest = f'<p class="note">and {more:,} more, in leakage.json</p>' if more > 0 else ""
    return (
        f"<h2>Leakage</h2><p>{checked} {result or 'No row is flagged.'}</p>"
        f'<p class="note">{html.escape(summary["rule"])}</p>{cards}{rest}'
    )


def _leak(leakage: Leakage, leak: Leak) -> str:
    hit = leak.hits[0]
    example = leakage.against.examples[hit.example]
    where = (
        f"target {example.line}" if example.file == TARGETS else f"{text_of(example.file, 80)}, line {example.line:,}"
    )
    parts = [text_of(leak.source, 80), text_of(leak.id, 80), f"{hit.words:,} words as in {where}"]
    names = "".join(f"<span>{part}</span>" for part in parts)
    sides = "".join(
        f'<div class="turn"><b>{name}</b><p class="said" dir="auto">{_quoted(quote)}</p></div>'
        for name, quote in (("pick", hit.yours), (where, hit.theirs))
        if quote is not None
    )
    return f'<div class="example"><header><b>{leak.rank:,}</b>{names}</header><div class="sides">{sides}</div></div>'


def _quoted(quote: Quote) -> str:
    return f"{text_of(quote.before)}<mark>{text_of(quote.shared)}</mark>{text_of(quote.after)}"


def _settings(picks: Picks, manifest: Mapping[str, Any]) -> str:
    store, choices, changed = picks.store.manifest, picks.choices, picks.changed
    values: dict[str, object] = {
        "method": get_method(picks.method).label,
        "budget": str(picks.budget),
        "model": store.config.model,
        "store fingerprint": picks.store.fingerprint,
        "pool files, start of SHA-256": _listed([_input(name) for name in store.inputs]),
        "rows scored, excluded": f"{len(picks.traits.rows):,}, {store.rows - len(picks.traits.rows):,}",
        "checkpoints, weights": _listed([f"{point.name} {point.weight:.3f}" for point in store.checkpoints]),
        "targets by subtask": _listed(_counts([row.subtask for row in picks.scoring.targets])),
        "accepted, rejected": f"{len(choices.accepted):,}, {len(choices.rejected):,}",
        "data file": f"{manifest['data']['file']}, {manifest['data']['bytes']:,} bytes",
        "SHA-256 of the data file": manifest["data"]["sha256"],
    }
    for name, value in {**choices.model_dump(mode="json"), "gradient": picks.gradient}.items():
        if name not in ("accepted", "rejected"):
            shown = _listed([str(part) for part in value]) if isinstance(value, list) else _plain(value)
            values[name.replace("_", " ")] = f"{shown} (changed)" if name in changed else shown
    lines = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{text_of(value, 2000)}</td></tr>" for name, value in values.items()
    )
    return (
        f"<h2>How to reproduce it</h2><pre>{text_of(manifest['command'], 4000)}</pre>"
        f'<table class="settings"><tbody>{lines}</tbody></table>'
    )


def _input(text: str) -> str:
    """A pool file as in the manifest ("NAME SHA256"), with its hash shortened."""
    name, _, sha256 = text.rpartition(" ")
    return f"{name} {sha256[:12]}"


def _plain(value: object) -> str:
    return (
        {True: "yes", False: "no", "": "none"}.get(value, str(value)) if isinstance(value, bool | str) else str(value)
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return (", ".join(names[:_MOST_NAMES]) or "none") + more


def _counts(names: list[str]) -> list[str]:
    return [f"{name} {names.count(name):,}" for name in dict.fromkeys(names)]


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"
