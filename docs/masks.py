"""Compare what is learned with the training templates of trl: python docs/masks.py

It needs `trl`, `hypothesis` and the bundled model's tokenizer. It writes the measured part of docs/masks.md and the
same figures as docs/figures/masks.json, and stops at the first difference that no rule explains.
"""

import argparse
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drawn import draw, without
from measured import fill, table
from oracle import RULES, Family, marked_tokenizer, twins

from gradsift.data.conversation import Conversation
from gradsift.model.bundled import ensure_smollm2
from gradsift.runtime import atomic

FITTED, WHOLE = 240, 20  # conversations of what a template has a place for, and of everything


class Unexplained(Exception):
    """A difference that no rule explains."""


def conversations(family: Family, pool: Sequence[Conversation], fitted: int, whole: int) -> Iterator[Conversation]:
    """Different conversations for a family: fitted to it, then as they are drawn."""
    fit = dict.fromkeys(without(conversation, family.lacking) for conversation in pool)
    yield from [one for one in fit if any(message.is_learned for message in one.messages)][:fitted]
    yield from pool[:whole]


def measure(family: Family, chosen: Iterator[Conversation]) -> dict[str, Any]:
    """Counts of a family: conversations, equal, named, refused; of rules and reasons; of learned turns and their ends.

    Raises:
        Unexplained: with the text of the first.
    """
    outcomes, rules, reasons, turns, ended = Counter[str](), Counter[str](), Counter[str](), 0, 0
    for conversation in chosen:
        found = family.compare(conversation)
        if found.outcome == "unexplained":
            raise Unexplained(f"{family.name}: {found.reason}")
        outcomes[found.outcome] += 1
        rules.update(set(found.rules))
        if found.outcome == "refused":
            reasons[found.reason] += 1
        turns, ended = turns + found.turns, ended + found.ended
    figures = {"family": family.name, "conversations": outcomes.total()}
    figures |= {outcome: outcomes[outcome] for outcome in ("equal", "named", "refused")}
    return {**figures, "rules": rules, "reasons": reasons, "turns": turns, "ended": ended}


def report(found: Sequence[dict[str, Any]]) -> str:
    """The measured part of the page."""
    keys = ("conversations", "equal", "named", "refused")
    lines = []
    for one in found:
        rules = ", ".join(f"{RULES[rule]} ({one['rules'][rule]})" for rule in RULES if one["rules"][rule])
        lines.append([f"`{one['family']}`", *(f"{one[key]:,}" for key in keys), rules])
    total = {key: sum(one[key] for one in found) for key in (*keys, "turns", "ended")}
    lines.append(["**all**", *(f"**{total[key]:,}**" for key in keys), ""])
    reasons = Counter[str]()
    for one in found:
        for reason, count in one["reasons"].items():
            reasons[re.split(": '|[:;] use another", reason)[0]] += count
    refused = table(["reason", "conversations"], [[reason, f"{count:,}"] for reason, count in reasons.most_common()])
    return "\n\n".join(
        [
            f"{len(found)} families, {total['conversations']:,} conversations. Learned turns that end with their end "
            f"token: {total['ended']:,} of {total['turns']:,}.",
            table(["family", *keys, "named differences (conversations)"], lines),
            "### Refused",
            refused,
        ]
    )


def figures(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The counts of the table as data."""
    return [{key: one[key] for key in ("family", "conversations", "equal", "named", "refused")} for one in found]


def main() -> None:
    """Measure every family, then write page and figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # transformers warns of every template
    tokenizer, pool = marked_tokenizer(str(ensure_smollm2())), draw(2 * FITTED, 0)
    found = []
    for name in twins():
        family = Family(name, tokenizer)
        found.append(measure(family, conversations(family, pool, FITTED, WHOLE)))
        print(json.dumps(figures(found[-1:])[0]), flush=True)
    fill(arguments.out, report(found))
    path = arguments.out.parent / "figures" / "masks.json"
    path.parent.mkdir(exist_ok=True)
    atomic.write_text(path, "[\n" + ",\n".join(json.dumps(one) for one in figures(found)) + "\n]\n")


if __name__ == "__main__":
    main()
