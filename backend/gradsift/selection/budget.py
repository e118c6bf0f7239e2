"""How much to pick: a share, a number of rows or a number of tokens."""

import re
from dataclasses import dataclass

import numpy as np

from gradsift.runtime.errors import UsageError
from gradsift.selection.ranking import Ranking

_BUDGET = re.compile(r"\s*(\d{1,15}(?:\.\d{1,15})?)\s*(%|tokens)?\s*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 2,500 is a number everywhere, 2,5% only in some countries


@dataclass(frozen=True)
class Budget:
    """How much to pick: a share of the usable rows, a number of rows, or a number of tokens (prompt and answer)."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `5%`, `200` or `50000tokens`.

        Raises:
            UsageError: the text is not a budget, or the budget is zero.
        """
        match = _BUDGET.fullmatch(_THOUSANDS.sub("", text))
        amount, unit = (float(match[1]), match[2] or "rows") if match else (0.0, "")
        if amount <= 0 or (unit == "%" and amount > 100) or (unit != "%" and amount != int(amount)):
            raise UsageError(f"{text!r} is not a budget; use a share (5%), rows (200) or tokens (50000tokens).")
        return cls(amount, unit)

    def __str__(self) -> str:
        number = f"{self.amount:.15f}".rstrip("0").rstrip(".") if self.unit == "%" else f"{int(self.amount)}"
        return number + {"%": "%", "rows": "", "tokens": "tokens"}[self.unit]

    def take(
        self, ranking: Ranking, n_tokens: np.ndarray, order: np.ndarray | None = None, least: int = 0
    ) -> np.ndarray:
        """Positions of the picks in rank order. n_tokens: (n,) tokens of every scored row, in pool order.

        A share is of all scored rows, rounded down but at least 1 (method, section 2.5). A token budget takes the
        longest run of best rows that fits. order: the candidates from best to worst, by default all rows. least: how
        many of the first are taken whatever the budget.

        Raises:
            UsageError: the token budget is smaller than the best row.
        """
        order = ranking.order if order is None else order
        if self.unit == "tokens":
            count = int(np.searchsorted(np.cumsum(n_tokens[order]), self.amount, side="right"))
            if count == least == 0 and len(order):
                best = int(n_tokens[order[0]])
                raise UsageError(
                    f"A budget of {int(self.amount)} tokens is less than the best row's {best}; give more."
                )
        else:
            count = self.rows(len(ranking.rows))
        return order[: max(count, least)]

    def rows(self, n: int) -> int:
        """How many of `n` scored rows to pick, for a share or a number of rows."""
        return max(1, int(n * self.amount / 100 + 1e-9)) if self.unit == "%" else min(int(self.amount), n)
