"""The base model's vectors: equal to one row at a time, kept per shard, resumed, scored (method, section 3: RDS+)."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from commands import gradsift
from reference import cosine, loss_of_one, random_rows
from stores import assert_same_files, flip, shard_files

from gradsift import score
from gradsift.analysis.row import by_target
from gradsift.analysis.summary import inspect
from gradsift.builder.build import begin, build
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.datastore.verify import verify
from gradsift.gradients.store_model import StoreModel
from gradsift.model import load
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress
from gradsift.scoring.base_model import DRAFT_DIM, BaseExtractor, HeadSketch, ensure_base, missing_base, weighted_mean
from gradsift.scoring.methods import METHODS
from gradsift.scoring.score_targets import score_targets
from gradsift.selection.ranking import rank


@pytest.fixture(scope="module")
def base(tiny_model):
    return load.load_model(str(tiny_model), torch.float32, torch.device("cpu")).model


def rds_plus_of_one(base, row) -> np.ndarray:
    """Token by token, in float64, from an ordinary forward pass."""
    with torch.no_grad():
        hidden = base.get_decoder()(input_ids=torch.tensor([row.ids])).last_hidden_state[0].double().numpy()
    total = sum((k + 1) * hidden[k] for k in range(len(row.ids)))
    return total / sum(range(1, len(row.ids) + 1))


@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_padded_batches_equal_one_row_at_a_time(base, budget):
    rows = random_rows(300, [3, 40, 17, 39, 1, 22, 38])
    result = BaseExtractor(base, ["rds+"], budget).extract(rows)["rds+"]
    assert result.dtype == torch.float32
    for vector, row in zip(result, rows, strict=True):
        np.testing.assert_allclose(vector, rds_plus_of_one(base, row), rtol=1e-4, atol=1e-5)


def test_later_tokens_weigh_more_and_padding_nothing():
    hidden = torch.tensor([[[1.0], [2.0], [4.0]], [[1.0], [2.0], [torch.inf]]])
    hidden[1, 2] = 1e30
    result = weighted_mean(hidden, torch.tensor([3, 2]))
    np.testing.assert_allclose(result[:, 0], [(1 + 2 * 2 + 3 * 4) / 6, (1 + 2 * 2) / 3])


def test_a_row_that_does_not_fit_with_others_goes_alone(base):
    """Any batch of more than one row runs out of memory: it is halved until it fits, in the same order."""
    rows = random_rows(300, [12, 12, 12, 12])
    extractor = BaseExtractor(base, ["rds+"], 4096)
    whole, once = extractor.extract(rows)["rds+"], extractor._batch

    def tight(batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return once(batch)

    extractor._batch = tight
    np.testing.assert_allclose(extractor.extract(rows)["rds+"], whole, rtol=1e-4, atol=1e-5)


class TestDraft:
    def test_is_a_sketch_of_the_output_layers_gradient(self, tiny_model):
        """Inner products of sketches, averaged over seeds, equal those of autograd's gradients."""
        model = load.load_model(str(tiny_model), torch.float32, torch.device("cpu")).model
        head = model.get_output_embeddings().weight.requires_grad_()
        rows = random_rows(300, [9, 14, 5, 21])
        exact = torch.stack([torch.autograd.grad(loss_of_one(model, row), head)[0].flatten() for row in rows])
        head.requires_grad_(False)
        result = [BaseExtractor(model, ["draft"], 64, seed).extract(rows)["draft"] for seed in range(40)]
        assert result[0].shape == (4, DRAFT_DIM)
        scale = exact.norm(dim=1)[:, None] * exact.norm(dim=1)
        errors = torch.stack([one @ one.T - exact @ exact.T for one in result]) / scale
        assert errors.square().mean().sqrt() < 2 / DRAFT_DIM**0.5
        assert errors.mean(0).abs().max() < 5 * 2 / (40 * DRAFT_DIM) ** 0.5  # no bias

    def test_equals_a_circular_convolution_by_loops(self):
        """The sketch of one token is Σ_ij error_i hidden_j at (place of i + place of j) mod d, signs multiplied."""
        sketch = HeadSketch(7, 5, 3, torch.device("cpu"))
        generator = torch.Generator().manual_seed(0)
        logits, hidden = torch.randn(2, 7, generator=generator), torch.randn(2, 5, generator=generator)
        due = torch.tensor([4, 0])
        places = {"error": torch.zeros(7, DRAFT_DIM), "hidden": sketch._hidden}
        sketch._errors.add("error", torch.eye(7), places["error"])
        expected = torch.zeros(DRAFT_DIM)
        for token in range(2):
            error = logits[token].softmax(0)
            error[due[token]] -= 1
            for i in range(7):
                for j in range(5):
                    (a,), (b,) = (places[n][k].nonzero()[0].tolist() for n, k in (("error", i), ("hidden", j)))
                    sign = places["error"][i, a] * places["hidden"][j, b]
                    expected[(a + b) % DRAFT_DIM] += sign * error[i] * hidden[token, j] / 2
        np.testing.assert_allclose(sketch.rows(logits, due, hidden, [2])[0], expected, atol=1e-6)

    @pytest.mark.parametrize("budget", [1, 64, 4096])
    def test_padded_batches_equal_one_row_at_a_time(self, base, budget):
        rows = random_rows(300, [3, 40, 17, 39, 2, 22, 38])
        result = BaseExtractor(base, ["rds+", "draft"], budget).extract(rows)
        for kind, vectors in result.items():
            alone = torch.cat([BaseExtractor(base, [kind], 1).extract([row])[kind] for row in rows])
            np.testing.assert_allclose(vectors, alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))

    def test_needs_no_build(self, tiny_pool, tiny_config, tiny_store, tiny_targets, tmp_path):
        """A store with only a pool ranks as the finished one does, and the build continues from it."""
        targets = read_targets(tiny_targets).rows
        begun = begin([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
        assert not begun.complete
        methods = ["draft", "rds+", "bm25", "dsir", "length", "random"]
        table = score(begun, targets, methods)
        pd.testing.assert_frame_equal(table, score(tiny_store, targets, methods))
        with pytest.raises(StoreError, match="not finished"):
            score(begun, targets, ["loss"])
        made = shard_files(begun.path)
        store = build([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
        score(store, targets[:1], ["draft"])
        assert made.items() <= shard_files(store.path).items()
        assert_same_files(store.path, tiny_store.path)

    def test_another_build_of_the_same_rows_keeps_the_pass(self, tiny_pool, tiny_config, tiny_targets, tmp_path):
        targets = read_targets(tiny_targets).rows
        begun = begin([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
        score(begun, targets, ["draft"])
        (begun.path / "representations" / "base" / ".tmp-of-another-process").touch()
        made = shard_files(begun.path)
        other = tiny_config.model_copy(update={"lora_rank": 2, "epochs": 1})
        store = build([tiny_pool], begun.path, other, progress=Progress(quiet=True))
        assert made.items() <= shard_files(store.path).items()
        assert (store.path / "representations" / "base" / ".tmp-of-another-process").exists()
        begin([tiny_pool], begun.path, other, progress=Progress(quiet=True))
        assert made.items() <= shard_files(store.path).items()
        shutil.rmtree(begun.path / "checkpoints")
        begin([tiny_pool / "facts.jsonl"], begun.path, other, progress=Progress(quiet=True))
        assert not (begun.path / "representations" / "base").exists()

    def test_a_draft_alone_has_no_evidence_of_checkpoints(self, tiny_pool, tiny_config, tiny_targets, tmp_path):
        begun = begin([tiny_pool], tmp_path / "store", tiny_config, progress=Progress(quiet=True))
        scoring = score_targets(begun, read_targets(tiny_targets).rows, ["draft", "bm25"])
        assert [name for name in METHODS if scoring.has(name)] == ["bm25", "draft", "random"]
        given = ["--targets", str(tiny_targets), "--method", "draft", "--top", "4", "--report"]
        done = gradsift("select", begun.path, *given, "--out", tmp_path / "picks")
        assert done.code == 0, done.err
        assert "<h2>" in (tmp_path / "picks" / "report.html").read_text()


class TestScoring:
    def test_equals_cosines_of_plain_passes(self, tiny_store, tiny_targets, base):
        targets = read_targets(tiny_targets).rows
        scoring = score_targets(tiny_store, targets, ["rds+"])
        model = StoreModel(tiny_store)
        encoder, rows = model.encoder, model.encode(scoring.rows)
        assert model.max_length == 96
        pool = [rds_plus_of_one(base, row) for row in rows]
        mine = [rds_plus_of_one(base, encoder.encode(target.conversation)) for target in targets]
        boxes, cats = (mine[0] + mine[1]) / 2, mine[2]
        expected = np.array([[cosine(boxes, x), cosine(cats, x)] for x in pool])
        ranking = rank(scoring, "rds+")
        np.testing.assert_allclose(ranking.score, expected.max(1), atol=1e-3)  # vectors are kept as fp16
        assert np.mean(ranking.best_subtask == expected.argmax(1)) > 0.95
        single = by_target(scoring, "rds+", 4)
        np.testing.assert_allclose(single, [[cosine(x, pool[4])] * 2 for x in mine], atol=1e-3)
        turns = rank(scoring, "rds+", aggregate="round-robin").order[:1]
        assert cosine(mine[0], pool[turns[0]]) == pytest.approx(max(cosine(mine[0], x) for x in pool), abs=1e-3)

    def test_is_made_once_for_all_targets(self, tiny_copy, tiny_targets, monkeypatch):
        targets = read_targets(tiny_targets).rows
        shutil.rmtree(tiny_copy.path / "representations" / "base", ignore_errors=True)
        score_targets(tiny_copy, targets, ["rds+"])
        before = shard_files(tiny_copy.path)
        assert sum("base" in str(path) for path in before) == len(tiny_copy.shard_ranges)
        score_targets(tiny_copy, targets[:1], ["rds+"])
        assert shard_files(tiny_copy.path) == before
        monkeypatch.setattr("gradsift.model.load.load_model", lambda *_: pytest.fail("the model was loaded again"))
        (tiny_copy.path / "scorings").rename(tiny_copy.path / "moved")
        with pytest.raises(pytest.fail.Exception, match="loaded again"):  # new targets need the model
            score_targets(tiny_copy, targets, ["rds+"])

    def test_goes_on_where_it_was_stopped(self, tiny_copy, tiny_targets):
        """Finished shards stay untouched; damaged or missing ones are computed again, with the same bytes."""
        given = (StoreModel(tiny_copy), ["rds+"], Progress(quiet=True))
        given[0].load(given[-1])
        ensure_base(*given)
        paths = [tiny_copy.shard_path("rds+", 0, index) for index in range(len(tiny_copy.shard_ranges))]
        whole = {path: path.read_bytes() for path in paths}
        paths[0].unlink()
        flip(paths[2], -1)
        kept = {path: stat for path, stat in shard_files(tiny_copy.path).items() if path not in (paths[0], paths[2])}
        assert missing_base(tiny_copy, ["rds+"]) == [0, 2]
        ensure_base(*given)
        assert {path: path.read_bytes() for path in paths} == whole
        assert {path: stat for path, stat in shard_files(tiny_copy.path).items() if path in kept} == kept

    def test_is_no_part_of_the_builds_promise_and_yet_known(self, tiny_store, tiny_copy, tiny_targets):
        score_targets(tiny_copy, read_targets(tiny_targets).rows, ["rds+"])
        assert tiny_copy.complete
        assert tiny_copy.fingerprint == tiny_store.fingerprint
        assert_same_files(tiny_copy.path, tiny_store.path)
        assert inspect(tiny_copy)["base_shards"]["rds+"] == len(tiny_copy.shard_ranges)
        assert not verify(tiny_copy.path)
        path = tiny_copy.shard_path("rds+", 0, 1)
        flip(path, -1)
        (problem,) = verify(tiny_copy.path)
        assert str(path) in problem
        assert Store.open(tiny_copy.path).complete
