"""Token-level influence, compared with autograd one token at a time in float64 (method, section 6)."""

import json
import shutil
import threading
from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from commands import gradsift
from conversations import talk
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import gradient_of_one, relative_error
from stores import flip
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM

from gradsift.analysis.tokens import TokenExplainer, describe, explain
from gradsift.builder.build import build
from gradsift.data.encode import Encoder
from gradsift.data.targets import TargetError
from gradsift.datastore.shards import ShardError, read_tensors, write_tensors
from gradsift.datastore.store import Store
from gradsift.gradients.adam import adam_scale, make_update
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.model import load
from gradsift.model.load import load_tokenizer
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.errors import StoreError, UsageError
from gradsift.runtime.progress import Progress
from gradsift.scoring.influence import influence
from gradsift.scoring.score_targets import score_targets
from gradsift.training.checkpoint import Checkpoint

CPU = torch.device("cpu")
END = "<|im_end|>"
CURVATURE = 5e-3  # of the largest value: the error of a central difference with a step of 0.01 on such a rough toy
BENGALI = "কলকাতা 👍🏽 é"
POOL = [
    [("user", "where is the cat?"), ("assistant", "the cat sat on the mat")],
    [("user", "h"), ("assistant", "the dog"), ("user", "?"), ("assistant", BENGALI), ("user", "x"), ("assistant", "y")],
    [("system", "be brief"), ("user", "what is in it?"), ("assistant", "the answer is in the text " * 16)],  # is cut
    [("user", "say it"), ("assistant", "the question")],  # gets a prefix
    [("user", "no answer")],
    [("user", "the capital?"), ("assistant", "in the country")],
    [("user", "what sat?"), ("assistant", "the dog sat on the cat, " * 3)],
]  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory, tiny_model) -> Store:
    """Seven rows, of which row 4 is excluded, at two checkpoints."""
    folder = tmp_path_factory.mktemp("tokens")
    lines = [{"messages": [{"role": role, "content": text} for role, text in turns]} for turns in POOL]
    lines[3]["prefix"] = "The answer is:"
    (folder / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    config = reference.small_config(tiny_model, gradients=("adam", "sgd"))
    return build([folder / "pool.jsonl"], folder / "store", config, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def targets(tiny_targets):
    from gradsift.data.targets import read_targets

    return read_targets(tiny_targets).rows


@pytest.fixture(scope="module")
def scoring(store, targets):
    return score_targets(store, targets, ("less", "random"))


@pytest.fixture(scope="module")
def explainer(store):
    return TokenExplainer(store)


@pytest.fixture(scope="module")
def exact(store):
    """The model at every checkpoint in float64, made without the explainer."""
    result = []
    for epoch, name in enumerate(store.epochs):
        base = AutoModelForCausalLM.from_pretrained(store.manifest.config.model)
        peft = attach_adapter(base, store.path / "checkpoints" / name)
        set_adapter(peft, store.checkpoint(epoch).adapter)
        result.append(reference.in_float64(peft.eval()))
    return result


def flat(gradients) -> torch.Tensor:
    return torch.cat([gradients[name].double() for name in sorted(gradients)])


def encoder_of(store) -> Encoder:
    return Encoder(load_tokenizer(store.manifest.config.model), store.manifest.config.template)


def pool_row(store, row):
    prefix = "The answer is:" if row == 3 else ""
    return encoder_of(store).encode(talk(*POOL[row], prefix=prefix), store.manifest.config.max_length)


def mean_gradient(model, store, targets) -> torch.Tensor:
    encoder = encoder_of(store)
    result = [flat(gradient_of_one(model, encoder.encode(t.conversation))) for t in targets]
    return sum(result) / len(result)


def token_by_token(model, row, u) -> np.ndarray:
    """⟨u, ∇ℓ_t⟩ of every supervised token, one backward pass each."""
    lora = {n.replace(".default.", "."): p.requires_grad_(True) for n, p in model.named_parameters() if "lora_" in n}
    result = []
    for at in (position for position, taught in enumerate(row.supervised) if taught):
        loss = -log_softmax(model(input_ids=torch.tensor([row.ids])).logits[0, at - 1], dim=-1)[row.ids[at]]
        g = dict(zip(lora, torch.autograd.grad(loss, list(lora.values())), strict=True))
        result.append(float(flat({name: part.flatten() for name, part in g.items()}) @ u))
    return np.array(result)


def by_piece(values, n_tokens):
    return np.array([part.sum() for part in np.split(values, np.cumsum(n_tokens)[:-1])])


class TestValues:
    @pytest.mark.parametrize("row", [0, 1, 2, 3, 6])
    @pytest.mark.parametrize("subtask", [0, 1], ids=["two targets", "one target with a prefix"])
    def test_equal_float64_gradients_token_by_token(self, store, targets, scoring, explainer, exact, row, subtask):
        result = explainer.explain(scoring, row, subtask)
        members = [t for t in targets if t.subtask == result.subtask]
        assert len(members) == 2 - subtask
        encoded = pool_row(store, row)
        assert result.n_tokens.sum() == encoded.n_answer
        for epoch, model in enumerate(exact):
            u = mean_gradient(model, store, members)
            u /= u.norm()
            g = flat(gradient_of_one(model, encoded))
            expected = by_piece(token_by_token(model, encoded, u), result.n_tokens)
            np.testing.assert_allclose(result.values[epoch], expected, atol=CURVATURE * np.abs(expected).max())
            assert result.inner[epoch] == pytest.approx(float(u @ g), rel=1e-4, abs=1e-5 * float(g.norm()))
            assert result.grad_norm[epoch] == pytest.approx(float(g.norm()), rel=1e-4)

    @pytest.mark.parametrize("row", [0, 1, 2, 3, 5, 6])
    @pytest.mark.parametrize("kind", ["gradient", "adam"])
    def test_their_mean_is_the_inner_product(self, scoring, explainer, row, kind):
        for subtask in (0, 1):
            result = explainer.explain(scoring, row, subtask, kind)
            assert result.values.shape == (2, len(result.pieces))
            assert (result.bound == 1e-3 * result.grad_norm).all()
            assert (np.abs(result.mean - result.inner) <= result.bound).all()
            assert result.holds

    def test_the_check_fails_where_the_numbers_disagree(self, scoring, explainer):
        result = explainer.explain(scoring, 0, 0)
        assert not replace(result, inner=result.inner + np.array([0, 1.5]) * result.bound).holds

    def test_shares_add_up_to_the_weighted_cosine(self, store, targets, scoring, explainer, exact):
        result = explainer.explain(scoring, 1, 0)
        encoded, members = pool_row(store, 1), [t for t in targets if t.subtask == "boxes"]
        cosines = [
            reference.cosine(mean_gradient(m, store, members), flat(gradient_of_one(m, encoded)).detach())
            for m in exact
        ]
        assert result.cosine == pytest.approx(float(store.weights @ cosines), abs=1e-3)
        assert result.combined.sum() == pytest.approx(result.cosine, rel=1e-9)

    def test_a_step_on_a_positive_row_lowers_the_targets_loss(self, store, targets, scoring, explainer, exact):
        """The sign in its practical sense: train on the row a little, then look at the targets."""
        encoder = encoder_of(store)
        seen = set()
        for row in (0, 2, 3, 5, 6):
            for subtask, name in enumerate(scoring.subtask_names):
                members = [encoder.encode(t.conversation) for t in targets if t.subtask == name]
                model = exact[1]
                step = gradient_of_one(model, pool_row(store, row))
                lora = {n.replace(".default.", "."): p for n, p in model.named_parameters() if "lora_" in n}
                losses = []
                for size in (1e-4, -1e-4):
                    with torch.no_grad():
                        for key, weight in lora.items():
                            weight -= size * step[key].view_as(weight)
                        losses.append(float(sum(reference.loss_of_one(model, target) for target in members)))
                        for key, weight in lora.items():
                            weight += size * step[key].view_as(weight)
                mean = explainer.explain(scoring, row, subtask).mean[1]
                assert (losses[0] < losses[1]) == (mean > 0)
                seen.add(mean > 0)
        assert seen == {True, False}


class TestDirections:
    def test_adam_divides_by_the_root_of_v(self, store, targets, scoring, explainer, exact):
        result = explainer.explain(scoring, 0, 0, "adam")
        members = [t for t in targets if t.subtask == "boxes"]
        encoded = pool_row(store, 0)
        for epoch, model in enumerate(exact):
            checkpoint = store.checkpoint(epoch)
            second = flat({name: v.flatten() for name, (_, v) in checkpoint.moments.items()})
            beta = checkpoint.betas[1]
            u = mean_gradient(model, store, members)
            u = u / (second * beta / (1 - beta ** (checkpoint.step + 1)) + checkpoint.eps).sqrt()
            u /= u.norm()
            expected = by_piece(token_by_token(model, encoded, u), result.n_tokens)
            np.testing.assert_allclose(result.values[epoch], expected, atol=CURVATURE * np.abs(expected).max())
        plain = explainer.explain(scoring, 0, 0)
        assert not np.allclose(plain.values, result.values, atol=0.05 * np.abs(result.values).max())

    @pytest.mark.parametrize("form", ["paper", "adamw", "released"])
    def test_the_scale_is_what_the_update_does_to_a_small_gradient(self, form):
        generator = torch.Generator().manual_seed(0)
        m, v = torch.randn(4, 3, generator=generator), torch.rand(4, 3, generator=generator) + 0.1
        checkpoint = Checkpoint({}, {}, {"w": (m, v)}, 3, (0.8, 0.9), 1e-3, 1.0)
        update = make_update("adam", form, checkpoint, CPU)
        g = torch.randn(1, 12, generator=generator).sign() * 1e-3
        slope = (update("w", g).double() - update("w", -g).double())[0] / (2 * g[0].double())
        scale = adam_scale(form, checkpoint, CPU)["w"]
        assert scale.shape == (12,)
        ratio = slope / scale.double()  # (1 − β1) / (1 − β1^t'), the same for every coordinate
        expected = 0.1 if form == "released" else 0.2 / (1 - 0.8**4)
        np.testing.assert_allclose(ratio, expected, rtol=1e-2)

    def test_read_again_give_the_same(self, store, scoring, explainer):
        first = explainer.explain(scoring, 0, 1)
        files = sorted((scoring.path / "directions").iterdir())
        stamps = [file.stat().st_mtime_ns for file in files]
        again = TokenExplainer(store).explain(scoring, 0, 1)
        np.testing.assert_array_equal(again.values, first.values)
        assert [file.stat().st_mtime_ns for file in sorted((scoring.path / "directions").iterdir())] == stamps
        u, _ = read_tensors(files[0])
        assert float(flat(u).norm()) == pytest.approx(1, abs=1e-6)

    def test_follow_the_targets_and_the_checkpoints_of_the_scoring(self, scoring, explainer):
        """A scoring without some of the targets has the same folder."""
        both = explainer.explain(scoring, 0, 0)
        alone = explainer.explain(replace(scoring, targets=scoring.targets[1:]), 0, 0)
        assert alone.subtask == both.subtask
        assert not np.allclose(alone.values, both.values)
        later = explainer.explain(replace(scoring, epochs=scoring.epochs[1:], weights=np.array([1.0])), 0, 0)
        np.testing.assert_array_equal(later.values, both.values[1:])

    def test_damaged_or_strange_ones_are_refused(self, tmp_path, store, scoring):
        folder = tmp_path / "scoring"
        shutil.copytree(scoring.path, folder, ignore=shutil.ignore_patterns("directions"))
        copied, explainer = replace(scoring, path=folder), TokenExplainer(store)
        explainer.explain(copied, 0, 0)
        (path,) = (folder / "directions").glob("*-gradient-epoch-1.safetensors")
        whole = path.read_bytes()
        flip(path, -1)
        with pytest.raises(ShardError, match="is damaged"):
            explainer.explain(copied, 0, 0)
        path.write_bytes(whole)
        u, about = read_tensors(path)
        write_tensors(path, u, {**about, "of": "others"})
        with pytest.raises(StoreError, match="belongs to other targets"):
            explainer.explain(copied, 0, 0)

    def test_targets_of_zero_gradient_influence_nothing(self):
        from gradsift.analysis.tokens import _unit

        assert not _unit({"w": torch.zeros(3)})["w"].any()


class TestPieces:
    def test_several_answers_in_any_script(self, scoring, explainer):
        result = explainer.explain(scoring, 1, 0)
        for turn, answer in ((1, "the dog"), (3, BENGALI), (5, "y")):
            spelled = [piece for piece, at in zip(result.pieces, result.turns, strict=True) if at == turn]
            assert "".join(spelled) == answer + END
        assert set(result.turns) == {1, 3, 5}
        assert dict(zip(result.pieces, result.n_tokens, strict=True))["👍"] == 4  # as bytes

    def test_the_prefix_is_none_of_them(self, scoring, explainer):
        result = explainer.explain(scoring, 3, 0)
        assert "".join(result.pieces) == "the question" + END

    def test_a_row_that_was_cut(self, store, scoring, explainer):
        result = explainer.explain(scoring, 2, 0)
        assert result.n_cut == store.pool().loc[2, "n_cut"] > 0
        assert POOL[2][-1][1].startswith("".join(result.pieces))
        assert describe(result).endswith(f"{result.n_cut} more tokens were cut by --max-length.")

    def test_an_answer_without_anything_before_it(self, tiny_model):
        """With a template without a header, nothing predicts the first token, so it is not learned."""
        bare = "{% for m in messages %}{{ m['content'] + '<|im_end|>' }}{% endfor %}"
        encoder = Encoder(load_tokenizer(str(tiny_model)), bare)
        conversation = talk(("assistant", "the cat"))
        pieces = encoder.pieces(conversation)
        assert sum(piece.n_tokens for piece in pieces) == encoder.encode(conversation).n_answer
        assert ("the cat" + END).endswith("".join(piece.text for piece in pieces))

    @settings(deadline=None, max_examples=60)
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=3))
    def test_end_to_end_they_are_the_answers(self, tiny_model, answers):
        encoder = Encoder(load_tokenizer(str(tiny_model)), "chat")
        conversation = talk(*(turn for answer in answers for turn in (("user", "q"), ("assistant", answer))))
        pieces = encoder.pieces(conversation)
        assert sum(piece.n_tokens for piece in pieces) == encoder.encode(conversation).n_answer
        for turn, answer in enumerate(answers):
            assert "".join(piece.text for piece in pieces if piece.turn == 2 * turn + 1) == answer + END


class TestTheModelIsLeftAlone:
    def test_weights_return_bit_for_bit(self, store, scoring):
        explainer = TokenExplainer(store)
        explainer.explain(scoring, 0, 0)
        gradients, checkpoint = explainer._model.at(1)
        weights = gradients.weights
        assert all(torch.equal(weights[name], checkpoint.adapter[name]) for name in weights)
        explainer.explain(scoring, 1, 1, "adam")
        assert set(weights) == set(checkpoint.adapter)
        assert all(torch.equal(weights[name], checkpoint.adapter[name]) for name in weights)
        assert all(p.grad is None and not p.requires_grad for p in gradients.model.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in gradients.model.modules())
        assert torch.is_grad_enabled()

    def test_also_when_a_pass_fails(self, store, scoring, monkeypatch):
        explainer = TokenExplainer(store)
        before = explainer.explain(scoring, 0, 0)
        gradients, checkpoint = explainer._model.at(0)

        def refuse(self, batch):
            raise torch.OutOfMemoryError("full")

        with monkeypatch.context() as patched:
            patched.setattr(PerExampleGradients, "token_losses", refuse)
            with pytest.raises(torch.OutOfMemoryError):
                explainer.explain(scoring, 0, 0)
        assert all(torch.equal(w, checkpoint.adapter[name]) for name, w in gradients.weights.items())
        np.testing.assert_array_equal(explainer.explain(scoring, 0, 0).values, before.values)

    def test_targets_that_do_not_fit_together_are_taken_in_parts(self, store, scoring, monkeypatch):
        """Memory runs out halfway through the backward pass: that batch's gradients count once."""
        explainer, quiet = TokenExplainer(store), Progress(quiet=True)
        with explainer._model.session(quiet):
            gradients, _ = explainer._model.at(0)
            whole = explainer._mean_gradient(gradients, scoring.targets, quiet)
            run = PerExampleGradients.run

            def tight(self, batch, sink):
                result = run(self, batch, sink)
                if len(batch) > 1:
                    raise torch.OutOfMemoryError("full")
                return result

            monkeypatch.setattr(PerExampleGradients, "run", tight)
            parts = explainer._mean_gradient(gradients, scoring.targets, quiet)
        assert len(scoring.targets) > 1
        for name, g in whole.items():
            torch.testing.assert_close(parts[name], g, rtol=1e-4, atol=1e-5)

    def test_two_at_once_get_their_own_answers(self, scoring, explainer):
        requests = [(0, 0), (1, 1), (6, 0), (3, 1)]
        alone = [explainer.explain(scoring, *question).values for question in requests]
        result = {}
        threads = [
            threading.Thread(target=lambda q=q: result.__setitem__(q, explainer.explain(scoring, *q).values))
            for q in requests
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for question, expected in zip(requests, alone, strict=True):
            np.testing.assert_array_equal(result[question], expected)

    def test_checkpoints_of_different_shape(self, store, scoring, tmp_path):
        """Checkpoints may have different LoRA configurations: the model is then wrapped again."""
        explainer = TokenExplainer(store)
        expected = explainer.explain(scoring, 0, 0)
        explainer._model._adapter_config = {}
        np.testing.assert_array_equal(explainer.explain(scoring, 0, 0).values, expected.values)


class TestRefusals:
    def test_rows_that_are_not_scored(self, scoring, explainer):
        with pytest.raises(UsageError, match=r"Row 4 of .* is excluded \(.*assistant.*\)"):
            explainer.explain(scoring, 4, 0)
        with pytest.raises(UsageError, match="no row 7: its rows are 0 to 6"):
            explainer.explain(scoring, 7, 0)

    def test_subtasks_that_are_not_there(self, store, targets, scoring, explainer):
        for number in (2, -1):
            with pytest.raises(UsageError, match=f"no subtask number {number}"):
                explainer.explain(scoring, 0, number)
        with pytest.raises(UsageError, match="no subtask 'dogs': choose among boxes, cats"):
            explain(store, targets, 0, "dogs")

    def test_adam_without_moments(self, store, scoring, monkeypatch):
        load = Store.checkpoint
        monkeypatch.setattr(Store, "checkpoint", lambda self, epoch: replace(load(self, epoch), moments={}))
        moved = replace(scoring, targets=scoring.targets[:1])  # not saved yet
        with pytest.raises(StoreError, match="holds no Adam moments"):
            TokenExplainer(store).explain(moved, 0, 0, "adam")

    def test_targets_that_cannot_be_used(self, scoring, explainer):
        long = replace(scoring.targets[0], messages=talk(("user", "the cat " * 600), ("assistant", "yes")).messages)
        with pytest.raises(TargetError, match=r"Target 1 of boxes cannot be used: .*window of 512"):
            explainer.explain(replace(scoring, targets=[long]), 0, 0)

    def test_another_model(self, store, scoring):
        changed = Store(store.path, store.manifest.model_copy(update={"model_fingerprint": "0" * 16}))
        with pytest.raises(StoreError, match="its weights have changed"):
            TokenExplainer(changed).explain(scoring, 0, 0)


class TestCorrelation:
    def test_cosines_and_scores_of_the_sample(self, scoring, explainer):
        result = explainer.correlate(scoring, 1, sample=4, seed=3)
        assert len(set(result.rows)) == 4
        assert set(result.rows) <= set(scoring.rows)
        expected = [explainer.explain(scoring, int(row), 1).cosine for row in result.rows]
        np.testing.assert_allclose(result.cosine, expected, atol=1e-3)
        scores = influence(scoring.evidence("less"), scoring.subtask_of, 2)[:, 1]
        np.testing.assert_allclose(result.influence, scores[np.searchsorted(scoring.rows, result.rows)])
        assert result.pearson == pytest.approx(np.corrcoef(result.cosine, result.influence)[0, 1])
        again = explainer.correlate(scoring, 1, sample=4, seed=3)
        np.testing.assert_array_equal(again.cosine, result.cosine)

    def test_plain_stored_gradients_agree_up_to_projection(self, store, targets, explainer):
        """If LESS itself uses plain gradients, the two differ only by the random projection to 64 dimensions."""
        scoring = score_targets(store, targets, ("less",), "sgd")
        result = explainer.correlate(scoring, 0, gradient="sgd")
        assert len(result.rows) == 6
        np.testing.assert_allclose(result.cosine, result.influence, atol=3 / 64**0.5)
        assert result.pearson > 0.8

    def test_targets_not_scored_by_less(self, store, targets, explainer):
        scoring = score_targets(store, targets[2:], ("random",))
        with pytest.raises(StoreError, match="run gradsift score"):
            explainer.correlate(scoring, 0)

    def test_ranks_share_ties(self):
        from gradsift.analysis.tokens import _pearson, _ranks

        np.testing.assert_array_equal(_ranks(np.array([3.0, 1.0, 3.0, 2.0])), [2.5, 0, 2.5, 1])
        assert np.isnan(_pearson(np.ones(3), np.arange(3)))
        assert np.isnan(_pearson(np.full(3, 0.1), np.array([1.0, 2, 4])))  # 0.1 is not its own mean


class TestOneCall:
    def test_takes_the_best_subtask_unless_told(self, store, targets, scoring):
        scores = influence(scoring.evidence("less"), scoring.subtask_of, 2)
        for row in (0, 5):
            best = scores[np.searchsorted(scoring.rows, row)].argmax()
            result = explain(store, targets, row)
            assert result.subtask == scoring.subtask_names[best]
        other = explain(store, targets, 0, "cats")
        assert (other.subtask, other.row) == ("cats", 0)

    def test_what_is_printed(self, store, targets, scoring, explainer):
        result = explainer.explain(scoring, 1, 0)
        record = json.loads(json.dumps(result.record()))
        assert "".join(record["pieces"]) == "the dog" + END + BENGALI + END + "y" + END
        assert record["mean"] == result.mean.tolist()
        assert record["holds"] is True
        text = describe(result)
        assert f"Row 1 for 'boxes': cosine {result.cosine:+.4f}" in text
        assert f"{result.combined[0]:+.5f}  'the'" in text
        assert "\x1b" not in describe(replace(result, pieces=["\x1b[2J"] * len(result.pieces)))

    def test_from_the_command_line(self, store, tiny_targets, scoring, explainer):
        given = ("explain", store.path, "--targets", tiny_targets, "--row", 1)
        printed = gradsift(*given, "--subtask", "boxes", "--json")
        assert printed.code == 0
        result = json.loads(printed.out)
        np.testing.assert_allclose(result["values"], explainer.explain(scoring, 1, 0).values, atol=1e-3)
        assert gradsift(*given).out.startswith("Row 1 for '")
        refused = gradsift(*given[:-1], 4)
        assert refused.code == 2
        assert "Row 4" in refused.error


class TestBf16:
    def test_a_store_built_in_bf16_is_explained_in_fp32(self, tiny_model, tmp_path):
        """Rounded weights, but exact arithmetic: the identity holds as elsewhere."""
        lines = [{"messages": [{"role": r, "content": c} for r, c in turns]} for turns in (POOL[0], POOL[1], POOL[5])]
        (tmp_path / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        config = reference.small_config(tiny_model, dtype="bf16", epochs=1)
        store = build([tmp_path / "pool.jsonl"], tmp_path / "store", config, progress=Progress(quiet=True))
        from gradsift.data.targets import parse_targets

        result = explain(store, parse_targets("Q: where is the dog?\nA: on the mat").rows, 1)
        assert result.holds
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
        peft = attach_adapter(base.float(), store.path / "checkpoints" / "epoch-1")
        set_adapter(peft, store.checkpoint(0).adapter)
        g = flat(gradient_of_one(reference.in_float64(peft.eval()), encoder_of(store).encode(talk(*POOL[1]))))
        assert relative_error(torch.tensor(result.grad_norm[0]), g.norm()) < 1e-4


@pytest.mark.slow
def test_smollm2_keeps_the_identity(smollm2, tmp_path):
    talk = [
        ("How tall is Everest?", "8,849 metres above sea level."),
        ("Where is Kolkata?", "কলকাতা ভারতে। 👍🏽"),
        ("2+2", "4"),
    ]
    lines = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in talk]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    template = load.demo_template().read_text()
    config = reference.small_config("smollm2", template=template, epochs=1, lora_rank=8, lr=2e-4)
    store = build([tmp_path / "pool.jsonl"], tmp_path / "store", config, progress=Progress(quiet=True))
    from gradsift.data.targets import parse_targets

    targets = parse_targets("Q: How tall is K2?\nA: 8,611 metres.\n\nQ: 3+5\nA: 8").rows
    explainer, scoring = TokenExplainer(store), score_targets(store, targets, ("random",))
    for row in range(3):
        result = explainer.explain(scoring, row, 0)
        assert result.holds, (result.mean, result.inner, result.bound)
        assert "".join(result.pieces) == talk[row][1] + END
