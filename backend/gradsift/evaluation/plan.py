"""What an evaluation compares: target sets with held-out rows, methods with choices, and runs of all combinations.

All runs train with the same recipe.
"""

from dataclasses import asdict, dataclass
from typing import Any

from gradsift.data.pool import Row
from gradsift.datastore.store import Store
from gradsift.evaluation.heldout import HeldOut, metric
from gradsift.evaluation.report import FULL, VALIDATION, ZERO_SHOT, Recipe, SetAbout, run_key
from gradsift.runtime.errors import UsageError
from gradsift.runtime.hashing import hash_json
from gradsift.scoring.choices import Choices, make_choices
from gradsift.scoring.methods import get_method
from gradsift.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class EvaluationSet:
    """Target examples for selecting, and held-out rows of the same skill for judging."""

    name: str
    targets: list[Row]
    heldout: list[HeldOut]

    @property
    def about(self) -> SetAbout:
        """The entry in the report."""
        targets = [(row.subtask, *asdict(row.conversation).values()) for row in self.targets]
        heldout = [(h.golds, *asdict(h.row.conversation).values()) for h in self.heldout]
        content = hash_json([targets, heldout])[:16]
        return SetAbout(
            targets=len(self.targets), heldout=len(self.heldout), metric=metric(self.heldout), content=content
        )


@dataclass(frozen=True, eq=False)
class MethodSpec:
    """A method with choices: `less`, `less:aggregate=round-robin`, or several choices, each after a colon."""

    text: str
    name: str
    choices: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "MethodSpec":
        """Read a method with its choices.

        Raises:
            UsageError: there is no such method or choice.
        """
        name, *fields = text.split(":")
        choices = {}
        for field in fields:
            key, equals, value = field.partition("=")
            if not equals:
                raise UsageError(
                    f"{text!r} is not a method with choices; use METHOD:CHOICE=VALUE, like less:aggregate=round-robin."
                )
            definition = Choices.model_fields.get(key)
            several = definition is not None and isinstance(definition.default, tuple)
            choices[key] = tuple(value.split("+")) if several else value
        if name not in (ZERO_SHOT, VALIDATION, FULL):
            get_method(name)
        make_choices(**choices)
        return cls(text, name, choices)


@dataclass(frozen=True)
class Planned:
    """One run: a method picks for a set, and a model is trained with a seed."""

    set: EvaluationSet
    spec: MethodSpec
    seed: int

    @property
    def key(self) -> str:
        return run_key(self.set.name, self.spec.text, self.seed)


def store_recipe(store: Store, **changed: Any) -> Recipe:
    """The recipe of the store's own warmup with some values `changed`; if built from checkpoints, with their LoRA.

    Raises:
        UsageError: a value is out of range, or the store had no warmup and epochs, batch_size or lr are missing.
    """
    config = store.manifest.config
    if not config.checkpoints:
        return Recipe.of(config, **changed)
    if missing := [name for name in ("epochs", "batch_size", "lr") if name not in changed]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise UsageError(f"{store.path} was built from checkpoints whose training settings are unknown: give {flags}.")
    checkpoint = Checkpoint.load(store.path / "checkpoints" / store.epochs[0])
    layers = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in checkpoint.adapter}
    lora = {name: checkpoint.adapter_config[name] for name in ("lora_alpha", "lora_dropout")}
    own = {"lora_rank": checkpoint.adapter_config["r"], "lora_targets": tuple(sorted(layers)), **lora}
    return Recipe.of(config, **{**own, **changed})
