"""docs/results.py: the whole of it once on a toy, from drawing the rows to the page."""

import json
import shutil
from types import SimpleNamespace

import pytest
import results
import results_page

from gradsift.datastore.store import Store
from gradsift.evaluation import run as evaluating
from gradsift.evaluation.report import Recipe, read_report
from gradsift.training.checkpoint import Checkpoint

KINDS = ("gradients", "no-warmup")


@pytest.fixture(scope="module")
def toy(tiny_pool, tiny_config, tmp_path_factory):
    """Data of two-layer size, and the script's constants set to it: the core and two other stores, made."""
    data, work, reports = (tmp_path_factory.mktemp(name) for name in ("data", "work", "reports"))
    write_data(data, tiny_pool)
    with pytest.MonkeyPatch.context() as patch:
        config = tiny_config.model_copy(update={"gradients": ("adam",)})
        patch.setattr(results, "CONFIG", config)
        patch.setattr(results, "RECIPE", Recipe.of(config, epochs=1))
        patch.setattr(results, "BUDGET", "4")
        patch.setattr(results, "ONE", ("validation", "full"))
        for module in (results, results_page):
            patch.setattr(module, "REPORTS", reports)
            patch.setattr(module, "CORE", reports / "core.json")
        for name in ("core", *KINDS):
            results.run(data, work, name, 60)
        yield SimpleNamespace(data=data, work=work, reports=reports)


def write_data(data, pool):
    def line(question, reply, **more):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": reply}]
        return json.dumps({"messages": turns, **more})

    shutil.copytree(pool, data / "pool")
    (data / "targets").mkdir()
    (data / "eval").mkdir()
    for name in results.SETS:
        rows = [line(f"{name}: the cat? {i}", "in box 3", subtask=f"s{i % 2}") for i in range(4)]
        rows.append(line("the cat sat " * 400, "too long", subtask="s0"))
        (data / "targets" / f"{name}.jsonl").write_text("\n".join(rows))
        zero = {"messages_zeroshot": json.loads(line("the dog?", "B"))["messages"]} if name == "bbh" else {}
        rows = [line(f"{name}: the dog? {i}", "B", subtask=f"s{i % 2}", answer="B", **zero) for i in range(5)]
        (data / "eval" / f"{name}.jsonl").write_text("\n".join(rows))


class TestRows:
    def test_one_target_a_subtask_but_for_tydiqa(self, toy):
        counts = {p.stem: len(p.read_text().splitlines()) for p in (toy.work / "targets").glob("*.jsonl")}
        assert counts == {"mmlu": 2, "bbh": 2, "tydiqa": 4}

    def test_bbh_is_asked_without_examples(self, toy):
        for name, question in (("bbh", "the dog?"), ("mmlu", "mmlu: the dog?")):
            lines = (toy.work / "eval" / f"{name}.jsonl").read_text().splitlines()
            assert len(lines) == 5
            assert all(json.loads(line)["messages"][0]["content"].startswith(question) for line in lines)


class TestCore:
    def test_every_run(self, toy):
        report = read_report(toy.reports / "core.json")
        kinds = {(run.method, run.seed) for run in report.runs}
        three = {(method, seed) for method in ("random", "less") for seed in range(3)}
        assert kinds == {("zero-shot", 0), *three, ("validation", 0), ("full", 0)}
        assert len(report.runs) == report.planned == 3 * len(kinds)


class TestOtherStores:
    def test_only_what_the_store_picks_is_trained(self, toy):
        core = {run.key: run for run in read_report(toy.reports / "core.json").runs}
        for name, methods in (("gradients", {results_page.SGD, results_page.SIGN}), ("no-warmup", {results_page.SGD})):
            report = read_report(toy.reports / f"{name}.json")
            same = [run for run in report.runs if run.method not in methods]
            assert {run.method for run in same} == {"zero-shot", "random", "validation"}
            assert all(core[run.key] == run for run in same)
            assert len(report.runs) - len(same) == 3 * len(methods)

    def test_they_differ_from_the_cores_store_as_told(self, toy):
        core, other = (Store.open(toy.work / name).manifest for name in ("store", "store-gradients"))
        assert core.config.differences(other.config) == ["gradients ('adam',) there, ('sgd', 'sign') here"]

    def test_no_warmup_is_lora_as_it_begins(self, toy):
        store = Store.open(toy.work / "store-no-warmup")
        checkpoint = Checkpoint.load(store.path / "checkpoints" / "epoch-1")
        assert store.epochs == ["epoch-1"]
        for name, weight in checkpoint.adapter.items():
            assert weight.abs().max() == 0 if "lora_B" in name else weight.abs().max() > 0

    def test_all_again_makes_nothing_again_and_needs_no_store(self, toy, monkeypatch):
        monkeypatch.setattr(evaluating, "finetune", None)
        monkeypatch.setattr(results, "build", None)
        before = (toy.reports / "gradients.json").read_bytes()
        for name in ("core", *KINDS):
            results.run(toy.data, toy.work, name, 60)
        assert (toy.reports / "gradients.json").read_bytes() == before

    def test_the_page_shows_what_there_is(self, toy, tmp_path):
        results_page.write_page(tmp_path / "page.md")
        page = (tmp_path / "page.md").read_text()
        section = page[page.index("## Other stores") :]
        section = section[: section.index("\n## ")]
        lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][2:]
        assert [line[1] for line in lines] == [
            "`less`",
            "`less:gradient=sgd`",
            "`less:gradient=sign`",
            "`less:gradient=sgd`",
        ]
        key, report = "bbh/less:gradient=sign/0", read_report(toy.reports / "gradients.json")
        run, picked = next(r for r in report.runs if r.key == key), report.picks[key].ids
        shared = set(picked) & set(read_report(toy.reports / "core.json").picks["bbh/less/0"].ids)
        assert lines[2][3] == f"{run.best_loss:.3f} ({run.answer_tokens:.0f}, {len(shared)} of {len(picked)})"
        assert lines[2][5:] == ["49.7", "39.0", "54.8 |"]


def test_a_draw_is_the_same_again_and_spreads_over_subtasks():
    rows = [{"id": i, "subtask": "many" if i < 20 else "few"} for i in range(22)]
    drawn = results._spread(rows, 6)
    assert drawn == results._spread(rows, 6)
    assert sum(row["subtask"] == "few" for row in drawn) == 2
