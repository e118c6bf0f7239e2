"""The naive baselines against loops: counted tokens, and losses from the library's own model, row by row."""

import numpy as np
import torch
from reference import loss_of_one

from gradsift.data.encode import Encoder
from gradsift.data.targets import read_targets
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.selection.score import score


def test_length_and_loss_are_those_of_every_row(tiny_store, tiny_targets):
    config = tiny_store.manifest.config
    encoder = Encoder(load.load_tokenizer(config.model), config.template)
    texts = tiny_store.texts(tiny_store.scored_rows)
    rows = [encoder.encode(conversation, config.max_length) for conversation in texts["conversation"]]
    losses = np.zeros(len(rows))
    base = load.load_model(config.model, torch.float32, torch.device("cpu")).model
    for epoch, (name, weight) in enumerate(zip(tiny_store.epochs, tiny_store.weights, strict=True)):
        peft = attach_adapter(base, tiny_store.path / "checkpoints" / name).eval()
        set_adapter(peft, tiny_store.checkpoint(epoch).adapter)
        with torch.no_grad():
            losses += weight * np.array([float(loss_of_one(peft, row)) for row in rows])
        peft.unload()
    table = score(tiny_store, read_targets(tiny_targets).rows, ["length", "loss"])
    for method, expected in (("length", [row.n_answer for row in rows]), ("loss", losses)):
        own = table[table["method"] == method].sort_values("row")
        np.testing.assert_allclose(own["score"], expected, rtol=1e-4)
        assert own.sort_values("rank")["score"].is_monotonic_decreasing
