"""An evaluation's recipe as a standalone program that trains on a selection as the evaluation did."""

import json

from gradsift.evaluation.report import Recipe

_SCRIPT = '''"""Fine-tune the way `gradsift evaluate` did: python train.py PICKS OUT [SEED]

PICKS is a file written by `gradsift select` (train.jsonl), or any file in one of the pool's schemas. If rows have a
`prefix`, select with `--format less`: other formats join it to the answer, so that it is learned as well.
The LoRA adapter is written to OUT in PEFT's own format.
"""

import json
import sys

from gradsift.data.encode import Encoder
from gradsift.data.pool import read_rows
from gradsift.data.schemas import Reading
from gradsift.evaluation.finetune import trainable
from gradsift.evaluation.report import Recipe
from gradsift.model import load
from gradsift.model.lora import attach_lora
from gradsift.runtime.device import default_device, resolve_dtype
from gradsift.training.trainer import make_trainer

RECIPE = Recipe.model_validate(json.loads({recipe!r}))


def main(picks: str, out: str, seed: int = 0) -> None:
    config, device = RECIPE.config(seed), default_device()
    base = load.load_model(config.model, resolve_dtype(config.dtype, device), device).model
    encoder = Encoder(load.load_tokenizer(config.model), config.template, config.template_options)
    good = [row for row in read_rows([picks], reading=Reading(take=config.take)) if not row.reason]
    longest = min(config.max_length, load.model_window(config.model))
    rows = [encoded for _, encoded in trainable(encoder, good, longest)]
    peft = attach_lora(base, config)
    make_trainer(peft, rows, config, []).train()
    peft.save_pretrained(out)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:4]))
'''


def training_script(recipe: Recipe) -> str:
    """A program that trains a LoRA adapter with `recipe`; it needs only gradsift."""
    return _SCRIPT.format(recipe=json.dumps(recipe.model_dump(mode="json"), ensure_ascii=False))
