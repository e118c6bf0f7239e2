"""Why rows are excluded, counted: rows of one kind together, under the first one's reason in full."""

import re
from collections import Counter
from collections.abc import Mapping


class Reasons:
    """Counts of rows by reason. counts: reason -> rows, the reason being the first of its kind that was added."""

    def __init__(self, counts: Mapping[str, float] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, str] = {}  # kind -> the reason that is quoted for it
        for reason, rows in (counts or {}).items():
            self.add(reason, rows)

    def add(self, reason: str, rows: float = 1) -> None:
        """Count rows that are excluded for a reason."""
        self.counts[self._first.setdefault(_kind(reason), reason)] += rows  # type: ignore[assignment]

    def quoted(self, most: int) -> str:
        """The most frequent reasons with their counts, in one clause."""
        return "; ".join(f"{count:,.0f} x {reason}" for reason, count in self.counts.most_common(most))


def _kind(reason: str) -> str:
    """A reason without its numbers and details, so that similar ones count together."""
    return re.sub(r"\d+", "N", reason.partition(":")[0])
