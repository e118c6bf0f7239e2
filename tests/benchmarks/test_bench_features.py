"""The measurement runs end to end, and its peers do what they are said to do. Times are measured by the command."""

import json

import pytest
import torch
from reference import gradient_of_one, random_rows, relative_error, with_lora
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from gradsift.cli.bench import recipe as released
from gradsift.cli.bench.bergson import loop_seconds
from gradsift.cli.bench.pairs import in_turn
from gradsift.cli.main import cli
from gradsift.gradients.adam import make_update
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.training.checkpoint import Checkpoint


def test_the_command_prints_every_figure(tiny_model, tiny_pool):
    arguments = ["--model", str(tiny_model), "--rows", "5", "--runs", "2", "--rank", "2", "--json"]
    found = CliRunner().invoke(cli, ["bench", "features", str(tiny_pool), *arguments], catch_exceptions=False)
    figures = json.loads(found.stdout)["features"]
    measured = ("tokens_per_s", "time_ratio_to_bare", "speedup_over_recipe")
    assert all(figures[name] > 0 for name in measured)
    assert figures["speedup_over_bergson"] is None
    assert (figures["dtype"], figures["rank"], figures["dim"], figures["rows"]) == ("fp32", 2, 8192, 5)
    assert figures["runs"] == {"time_ratio_to_bare": 2, "speedup_over_recipe": 1}
    assert set(figures["spread"]) == set(figures["runs"])
    assert figures["padded_tokens"] >= figures["tokens"] > 0


def test_without_bergson_where_it_should_be_it_says_so(tiny_model, tiny_pool, tmp_path):
    found = CliRunner().invoke(cli, ["bench", "features", str(tiny_pool), "--bergson", str(tmp_path)])
    assert "There is no bergson in" in str(found.exception)


def test_the_recipe_is_adams_released_update_of_each_gradient(tiny_model, monkeypatch):
    model = with_lora(AutoModelForCausalLM.from_pretrained(tiny_model))
    shapes = PerExampleGradients(model).shapes
    generator = torch.Generator().manual_seed(0)
    moments = {n: (torch.randn(s, generator=generator), torch.rand(s, generator=generator)) for n, s in shapes.items()}
    checkpoint = Checkpoint({}, {}, moments, 3, (0.9, 0.999), 1e-8, 1e-4)
    rows = random_rows(300, [9, 20])
    update = make_update("adam", "released", checkpoint, torch.device("cpu"))
    expected = [
        torch.cat([update(name, g[None])[0] for name, g in sorted(gradient_of_one(model, row).items())]) for row in rows
    ]
    weights = dict(sorted(PerExampleGradients(model).weights.items()))
    model.requires_grad_(False)
    for weight in weights.values():
        weight.requires_grad_(True)
    monkeypatch.setattr(released, "project", lambda updates, dim: updates)
    assert relative_error(released.recipe(model, weights, rows, checkpoint, 8), torch.stack(expected)) < 1e-5


def test_the_recipes_projection_is_dense_signs_and_keeps_lengths():
    signs = released.project(torch.eye(40), 300)
    torch.testing.assert_close(signs.abs(), torch.full((40, 300), 300**-0.5))
    updates = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(released.project(updates, 300), updates @ signs)


def test_pairs_take_turns():
    order = []
    pairs = in_turn(lambda: order.append("a") or 2.0, lambda: order.append("b") or 4.0, 3, lambda: order.append("|"))
    assert "".join(order) == "ab|ba|ab|"
    assert pairs.ratios() == [0.5] * 3
    assert pairs.speedups() == [2.0] * 3


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        (["1/3 [00:08<00:16,  8.00s/it]", "3/3 [00:15<00:00,  4.50s/it]", "3/3 [00:15<00:00,  5.00s/it]"], 15.0),
        (["1/4 [00:00<00:00,  2.00it/s]", "4/4 [00:01<00:00,  4.00it/s]"], 1.0),
        (["1/4 [00:00<00:00,  2.00it/s]"], None),
    ],
)
def test_bergsons_loop_is_timed_by_its_bar(bar, expected):
    head = "Map: 100%|##| 8/8 [00:00<00:00, 2314.74 examples/s]\nComputing New worker:   0%|  | 0/3 [00:00<?, ?it/s]"
    text = head + "".join(f"\rComputing New worker: 33%|# | {state}" for state in bar)
    assert loop_seconds(text) == pytest.approx(expected)
