"""What an evaluation compares: target sets with their held-out rows, methods with their choices, and runs of both."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from gradsift.choices import Choices, make_choices
from gradsift.errors import UsageError
from gradsift.evaluation import FULL, VALIDATION, ZERO_SHOT, SetAbout, run_key
from gradsift.heldout import HeldOut, metric
from gradsift.methods import get_method
from gradsift.pool import Row


@dataclass(frozen=True)
class EvaluationSet:
    """Target examples that select, and held-out rows of the same skill that judge."""

    name: str
    targets: list[Row]
    heldout: list[HeldOut]

    @property
    def about(self) -> SetAbout:
        """For the report."""
        targets = [(row.subtask, row.prefix, row.messages) for row in self.targets]
        heldout = [(h.golds, h.row.prefix, h.row.messages) for h in self.heldout]
        content = hashlib.sha256(json.dumps([targets, heldout]).encode()).hexdigest()[:16]
        return SetAbout(
            targets=len(self.targets), heldout=len(self.heldout), metric=metric(self.heldout), content=content
        )


@dataclass(frozen=True, eq=False)
class MethodSpec:
    """A method with choices: `less`, or `less:aggregate=round-robin`, `less:gradient=sgd`, several joined by colons."""

    text: str
    name: str
    choices: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "MethodSpec":
        """Read one.

        Raises:
            UsageError: there is no such method or choice.
        """
        name, *fields = text.split(":")
        choices = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise UsageError(f"{text!r}: say METHOD:CHOICE=VALUE, for instance less:aggregate=round-robin.")
            known = Choices.model_fields.get(key)
            several = known is not None and isinstance(known.default, tuple)
            choices[key] = tuple(value.split("+")) if several else value
        if name not in (ZERO_SHOT, VALIDATION, FULL):
            get_method(name)
        make_choices(**choices)
        return cls(text, name, choices)


@dataclass(frozen=True)
class Planned:
    """One run: a method picks for a set, and a seed trains."""

    set: EvaluationSet
    spec: MethodSpec
    seed: int

    @property
    def key(self) -> str:
        return run_key(self.set.name, self.spec.text, self.seed)
