"""Evaluation: what is planned, picked and kept, that it resumes run by run, and that its tables are right."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from commands import gradsift
from conversations import records
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from gradsift.builder.build import build
from gradsift.data.encode import Encoder
from gradsift.data.targets import require_targets, write_targets
from gradsift.datastore.store import Store
from gradsift.evaluation import run as module
from gradsift.evaluation.finetune import Measured, mean_loss
from gradsift.evaluation.heldout import read_heldout
from gradsift.evaluation.plan import EvaluationSet, MethodSpec, store_recipe
from gradsift.evaluation.report import EvaluationError, Recipe, Report, read_report, run_key, runs_table, summary
from gradsift.evaluation.run import evaluate, store_rows
from gradsift.evaluation.script import training_script
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.errors import GradsiftError
from gradsift.scoring.choices import make_choices
from gradsift.selection.score import score

SPECS = ("less", "less:aggregate=round-robin")


@pytest.fixture(scope="module")
def boxes(tiny_targets, tmp_path_factory) -> EvaluationSet:
    path = tmp_path_factory.mktemp("heldout") / "test.jsonl"
    lines = [{"prompt": f"what is in box {n}?", "completion": "B", "answer": "B"} for n in range(30, 33)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return EvaluationSet("boxes", require_targets(tiny_targets), read_heldout(path))


@pytest.fixture(scope="module")
def store(tiny_store, tmp_path_factory) -> Store:
    out = tmp_path_factory.mktemp("evaluated") / "store"
    shutil.copytree(tiny_store.path, out)
    return Store.open(out)


@pytest.fixture(scope="module")
def made(store, boxes, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.json"
    return out, evaluate([store.path], [boxes], out, methods=SPECS, budget="4", seeds=2)


class TestSpec:
    def test_choices_after_colons(self):
        spec = MethodSpec.parse("less:gradient=sgd:without_checkpoints=epoch-1+epoch-2")
        assert spec.name == "less"
        assert spec.choices == {"gradient": "sgd", "without_checkpoints": ("epoch-1", "epoch-2")}

    def test_targets_are_left_out_by_number(self):
        assert make_choices(**MethodSpec.parse("less:without_targets=10+2").choices).without_targets == (2, 10)

    @pytest.mark.parametrize("text", ["lesss", "less:round-robin", "less:aggregate=most", "less:nothing=1"])
    def test_what_is_not_a_method_is_refused(self, text):
        with pytest.raises(GradsiftError):
            MethodSpec.parse(text)


class TestRuns:
    def test_every_method_and_seed_once_zero_shot_without_seeds(self, made):
        _, report = made
        expected = {run_key("boxes", "zero-shot", 0)}
        expected |= {run_key("boxes", m, seed) for m in ("random", "validation", *SPECS) for seed in (0, 1)}
        assert {run.key for run in report.runs} == expected
        assert report.planned == len(report.runs) == 9

    def test_a_method_may_have_fewer_seeds(self, made, store, boxes):
        out, report = made
        methods = {"random": 1, "validation": 1, "less": 2}
        assert evaluate([store.path], [boxes], out, methods=methods, budget="4", seeds=9) == report

    def test_picks_are_those_of_the_method(self, made, store, boxes):
        _, report = made
        table = score(store, boxes.targets, ["less"])
        best = table.nsmallest(4, "rank")["id"].tolist()
        assert report.picks[run_key("boxes", "less", 0)].ids == best
        assert report.picks[run_key("boxes", "less", 1)].ids == best
        random = [report.picks[run_key("boxes", "random", seed)].ids for seed in (0, 1)]
        assert random[0] != random[1]

    def test_sets_with_the_same_picks_share_a_training(self, made, store, boxes, tmp_path, monkeypatch):
        """Random's rows and the whole pool are the same for every set; measurements equal those of separate runs."""
        real, trained = module.finetune, []
        monkeypatch.setattr(module, "finetune", lambda *args: trained.append(args[-1]) or real(*args))
        more = EvaluationSet("more", boxes.targets[:2], boxes.heldout[:2])
        methods = {"random": 2, "validation": 1, "full": 1}
        comparison = evaluate([store.path], [boxes, more], tmp_path / "r.json", methods=methods, budget="4")
        assert [label.split(": ")[1] for label in trained] == [
            "random for boxes, random for more, seed 0",
            "validation for boxes, seed 0",
            "full for boxes, full for more, seed 0",
            "validation for more, seed 0",
            "random for boxes, random for more, seed 1",
        ]
        assert len(comparison.runs) == comparison.planned == 10
        alone = evaluate([store.path], [more], tmp_path / "alone.json", methods=methods, budget="4")
        by_key = {run.key: run for run in comparison.runs}
        compared = [run for run in (*made[1].runs, *alone.runs) if run.key in by_key]
        assert len(compared) == 4 + 5
        for run in compared:
            assert by_key[run.key].model_copy(update={"seconds": run.seconds}) == run

    def test_several_stores_take_turns_over_the_seeds(self, store, boxes, tiny_pool, tiny_config, tmp_path):
        second = build([tiny_pool], tmp_path / "second", tiny_config.model_copy(update={"seed": 1}))
        options = {"methods": ["less"], "budget": "4", "seeds": 3}
        comparison = evaluate([store.path, second.path], [boxes], tmp_path / "r.json", **options)
        assert [about.fingerprint for about in comparison.stores] == [store.fingerprint, second.fingerprint]
        for seed, own in enumerate((store, second, store)):
            picks = comparison.picks[run_key("boxes", "less", seed)]
            assert picks.store == own.fingerprint
            assert picks.ids == score(own, boxes.targets, ["less"]).nsmallest(4, "rank")["id"].tolist()
        with pytest.raises(EvaluationError, match="another store picked for boxes/random/1"):
            evaluate([store.path], [boxes], tmp_path / "r.json", **options)

    def test_best_epoch_is_chosen_on_the_targets(self, made):
        for run in made[1].runs:
            epoch = int(np.argmin(run.target_loss_by_epoch))
            assert run.best_epoch == epoch + (run.method != "zero-shot")
            assert run.best_loss == run.loss_by_epoch[epoch]
            assert run.score == run.score_by_epoch[epoch]
            assert len(run.loss_by_epoch) == (1 if run.method == "zero-shot" else 2)
            assert sum(run.sources.values()) == run.rows == {"zero-shot": 0, "validation": 3}.get(run.method, 4)

    def test_targets_alone_are_trained_on_whole(self, store, boxes, tmp_path, monkeypatch):
        """Targets train as in scoring, whatever the recipe's length; picks without an answer within it are refused."""
        seen = []
        result = [[Measured(1, 1, None)]]
        monkeypatch.setattr(module, "finetune", lambda base, rows, *args: seen.append(rows) or result)
        monkeypatch.setattr(module, "ALWAYS", ("validation", "random"))
        recipe = Recipe.of(store.manifest.config, max_length=8)
        with pytest.raises(EvaluationError, match=r"None of the 4 rows that random picked .* 8 tokens"):
            evaluate([store.path], [boxes], tmp_path / "r.json", methods=[], budget="4", seeds=1, recipe=recipe)
        assert [len(rows) for rows in seen] == [len(boxes.targets)]
        assert all(row.n_answer and len(row.ids) > 8 for row in seen[0])

    def test_picks_are_made_before_the_device_is_taken(self, store, boxes, tmp_path, monkeypatch):
        """Scoring locks the GPU, so a run that already held it would wait forever."""
        inside = []

        @contextmanager
        def exclusive(device, progress):
            inside.append(device)
            yield
            inside.pop()

        real = module.score_targets
        monkeypatch.setattr(module, "exclusive", exclusive)
        monkeypatch.setattr(module, "score_targets", lambda *args: inside == [] and real(*args))
        monkeypatch.setattr(module, "finetune", lambda *args: inside and [[Measured(1, 1, None)]])
        report = evaluate([store.path], [boxes], tmp_path / "r.json", methods=["less"], budget="4", seeds=1)
        assert [run.method for run in report.runs] == ["zero-shot", "random", "validation", "less"]

    def test_a_run_that_diverges_is_reported_and_not_kept(self, store, boxes, tmp_path, monkeypatch):
        monkeypatch.setattr(module, "finetune", lambda *args: [[Measured(1, float("nan"), None)]])
        with pytest.raises(
            EvaluationError, match=r"random for boxes, seed 0 diverged: the loss is no longer finite.*lower --lr"
        ):
            evaluate([store.path], [boxes], tmp_path / "r.json", methods=["less"], budget="4", seeds=1)
        assert [run.method for run in read_report(tmp_path / "r.json").runs] == ["zero-shot"]

    def test_a_store_of_given_checkpoints_has_their_lora_and_no_recipe(self, store):
        config = store.manifest.config.model_copy(update={"checkpoints": ("elsewhere",), "lora_rank": 128})
        foreign = Store(store.path, store.manifest.model_copy(update={"config": config}))
        with pytest.raises(GradsiftError, match=r"give --epochs, --lr\."):
            store_recipe(foreign, batch_size=4)
        own = store_recipe(store, batch_size=4)
        own = own.model_copy(update={"lora_targets": tuple(sorted(own.lora_targets))})
        assert store_recipe(foreign, batch_size=4, epochs=2, lr=2e-3) == own

    def test_rows_of_a_store_come_with_their_text(self, store):
        pool = store.pool()
        ids = pool["id"].tolist()[5:2:-1]
        rows = store_rows(store, ids)
        assert [row.id for row in rows] == ids
        assert [json.loads(row.raw)["messages"] for row in rows] == [records(row.messages) for row in rows]


class TestReport:
    def test_nothing_is_run_again(self, made, store, boxes, monkeypatch):
        out, report = made
        monkeypatch.setattr(module, "finetune", None)
        assert evaluate([store.path], [boxes], out, methods=SPECS, budget="4", seeds=2) == report

    def test_missing_runs_are_made_from_kept_picks_without_the_store(self, made, store, boxes, tiny_pool, tmp_path):
        _, report = made
        part = report.model_copy(update={"runs": report.runs[:4]})
        part.save(tmp_path / "part.json")
        gone = tmp_path / "nowhere"
        again = evaluate([gone], [boxes], tmp_path / "part.json", methods=SPECS, budget="4", seeds=2, pool=[tiny_pool])
        assert [run.model_copy(update={"seconds": 0}) for run in again.runs] == [
            run.model_copy(update={"seconds": 0}) for run in report.runs
        ]

    def test_what_ended_is_kept_when_a_run_fails(self, store, boxes, tmp_path, monkeypatch):
        real, calls = module.finetune, []

        def breaks(*args):
            calls.append(args)
            if len(calls) == 2:
                raise GradsiftError("stop")
            return real(*args)

        monkeypatch.setattr(module, "finetune", breaks)
        with pytest.raises(GradsiftError, match="stop"):
            evaluate([store.path], [boxes], tmp_path / "r.json", methods=["less"], budget="4", seeds=1)
        assert [run.method for run in read_report(tmp_path / "r.json").runs] == ["zero-shot", "random"]

    def test_another_evaluation_is_refused(self, made, store, boxes):
        out, report = made
        with pytest.raises(GradsiftError, match=r"budget.* differ"):
            evaluate([store.path], [boxes], out, methods=["less"], budget="5", seeds=2)
        other = EvaluationSet("boxes", boxes.targets[:1], boxes.heldout)
        with pytest.raises(GradsiftError, match="target set boxes"):
            evaluate([store.path], [other], out, methods=["less"], budget="4", seeds=2)
        recipe = report.recipe.model_copy(update={"lr": 1.0})
        with pytest.raises(GradsiftError, match="recipe"):
            evaluate([store.path], [boxes], out, methods=["less"], budget="4", seeds=2, recipe=recipe)

    def test_another_text_under_a_picked_id_is_refused(self, made, store, boxes, tiny_pool, tmp_path):
        """An id may be a line number: with one more line above, it names the previous row."""
        _, report = made
        report.model_copy(update={"runs": report.runs[:1]}).save(tmp_path / "part.json")
        files = sorted(tiny_pool.glob("*")) if tiny_pool.is_dir() else [tiny_pool]
        for file in files:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            (tmp_path / file.name).write_text("".join([lines[-1], *lines[:-1]]), encoding="utf-8")
        pool = [tmp_path / file.name for file in files]
        with pytest.raises(EvaluationError, match=r"other text than when boxes/.* was picked"):
            evaluate([store.path], [boxes], tmp_path / "part.json", methods=SPECS, budget="4", seeds=2, pool=pool)

    def test_the_number_type_is_settled_once(self, made, store, boxes, tmp_path):
        """The meaning of `auto` on another device must not change a report that is continued there."""
        _, report = made
        assert store.manifest.config.dtype == "auto"
        assert report.recipe.dtype == "fp32"
        half, auto = store_recipe(store, epochs=1, dtype="bf16"), store_recipe(store, epochs=1)
        options = {"methods": ["random"], "budget": "4", "seeds": 1}
        begun = evaluate([store.path], [boxes], tmp_path / "gpu.json", recipe=half, **options)
        assert evaluate([store.path], [boxes], tmp_path / "gpu.json", recipe=auto, **options) == begun

    @pytest.mark.parametrize("text", ["", "{}", "[1]", "\x00"])
    def test_what_is_not_a_report_is_refused(self, tmp_path, text):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(GradsiftError, match=r"r\.json"):
            read_report(tmp_path / "r.json")


def _report(runs: list[tuple[str, int, float, float | None]]) -> Report:
    recipe = {"model": "m", "template": "chat", "max_length": 8, "epochs": 1, "batch_size": 1, "lr": 1, "lora_rank": 1,
              "lora_alpha": 1, "lora_targets": ("q",), "lora_dropout": 0, "dtype": "fp32"}  # fmt: skip
    about = {"targets": 1, "heldout": 1, "metric": None, "content": ""}
    lines = [
        {"target_set": "s", "method": method, "seed": seed, "store": "", "rows": 3, "answer_tokens": 1, "sources": {},
         "target_loss_by_epoch": [1], "loss_by_epoch": [loss], "score_by_epoch": [score], "best_epoch": 1,
         "best_loss": loss, "score": score, "seconds": 1}
        for method, seed, loss, score in runs
    ]  # fmt: skip
    return Report(recipe=Recipe(**recipe), model_fingerprint="", budget="3", sets={"s": about}, stores=[], picks={},
                  planned=9, runs=lines)  # fmt: skip


class TestSummary:
    def test_means_spreads_and_pairs(self):
        report = _report(
            [("zero-shot", 0, 3.0, None), ("random", 0, 2.0, 0.5), ("random", 1, 2.4, 0.7),
             ("less", 0, 1.9, 0.6), ("less", 1, 2.0, 1.0), ("less", 2, 9.0, 0.2), ("bm25", 0, 2.1, 0.1)]
        )  # fmt: skip
        table = summary(report).set_index("method")
        assert table.index.tolist() == ["bm25", "random", "zero-shot", "less"]
        assert table.loc["random", "loss"] == pytest.approx(2.2)
        assert table.loc["random", "loss_sd"] == pytest.approx(np.std([2.0, 2.4], ddof=1))
        assert np.isnan(table.loc["random", "against_random"])
        assert table.loc["less", "score"] == pytest.approx(0.6)
        assert table.loc["less", "against_random"] == pytest.approx((-0.1 - 0.4) / 2)
        assert table.loc["less", ["better", "paired"]].tolist() == [2, 2]
        assert table.loc["bm25", ["better", "paired"]].tolist() == [0, 1]
        assert table.loc["zero-shot", "against_random"] == pytest.approx((1.0 + 0.6) / 2)
        assert np.isnan(table.loc["zero-shot", "score"])

    def test_a_line_per_epoch(self, made):
        table = runs_table(made[1])
        assert len(table) == 1 + 8 * 2
        assert table.loc[table["method"] == "zero-shot", "epoch"].tolist() == [0]
        assert set(table.loc[table["method"] == "less", "epoch"]) == {1, 2}


@pytest.mark.slow
def test_command_line(store, tiny_targets, boxes, tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_bytes(b"\n".join(h.row.raw for h in boxes.heldout) + b"\n")
    command = ["evaluate", store.path, "--targets", tiny_targets, "--test", test, "--out", tmp_path / "report.json"]
    done = gradsift(*command, "--budget", "3", "--seeds", "1", "--epochs", "1", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert {run["method"] for run in report["runs"]} == {"zero-shot", "random", "validation", "less"}
    assert {"target_set", "method", "seed", "rows", "loss_by_epoch", "best_loss", "score"} <= set(report["runs"][0])


@pytest.mark.slow
def test_another_training_model_has_its_own_template_and_layers(
    store, tiny_model, tiny_targets, boxes, tmp_path_factory, tmp_path
):
    other = tmp_path_factory.mktemp("other") / "neox"
    tokenizer = load.load_tokenizer(str(tiny_model))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = AutoConfig.for_model("gpt_neox", vocab_size=len(tokenizer), max_position_embeddings=512, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(other)
    tokenizer.save_pretrained(other)
    test = tmp_path / "test.jsonl"
    test.write_bytes(b"\n".join(h.row.raw for h in boxes.heldout) + b"\n")
    command = ["evaluate", store.path, "--targets", tiny_targets, "--test", test, "--out", tmp_path / "report.json"]
    command += ["--budget", "3", "--seeds", "1", "--epochs", "1", "--train-model", other]
    done = gradsift(*command)
    assert done.code == 1
    assert "query_key_value" in done.err
    assert "--lora-targets" in done.err
    command[command.index(tmp_path / "report.json")] = tmp_path / "own.json"
    own = ["--template", "tulu", "--lora-targets", "query_key_value", "--script", tmp_path / "train.py"]
    done = gradsift(*command, *own)
    assert done.code == 0, done.err
    report = read_report(tmp_path / "own.json")
    assert (report.recipe.model, report.recipe.lora_targets) == (str(other), ("query_key_value",))
    assert report.recipe.template == "tulu"
    assert len(report.runs) == report.planned == 4
    assert (tmp_path / "train.py").read_text() == training_script(report.recipe)


@pytest.mark.slow
def test_the_training_script_trains_what_the_evaluation_trained(made, store, boxes, tmp_path):
    _, report = made
    (tmp_path / "train.py").write_text(training_script(report.recipe))
    picks = store_rows(store, report.picks[run_key("boxes", "less", 1)].ids)
    write_targets(tmp_path / "picks.jsonl", picks)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "train.py", "picks.jsonl", "adapter", "1"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, env=environment)
    base = load.load_model(report.recipe.model, torch.float32, torch.device("cpu")).model
    peft = attach_adapter(base, tmp_path / "adapter")
    set_adapter(peft, load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    encoder = Encoder(load.load_tokenizer(report.recipe.model), report.recipe.template)
    encoded = [encoder.encode(row.conversation) for row in boxes.targets]
    run = next(run for run in report.runs if run.key == run_key("boxes", "less", 1))
    assert mean_loss(peft.eval(), encoded, 512) == pytest.approx(run.target_loss_by_epoch[-1], rel=1e-4)
