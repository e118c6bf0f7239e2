"""The whole pipeline against a script of its own: float64, autograd, one row at a time (method, sections 2 to 5).

The script below takes from the store only what the warmup left (adapters, moments, the log of rates) and reads pool and
targets itself. It renders, tokenizes, merges LoRA into the weights, differentiates, applies Adam and Eq. 2 by hand.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from conversations import talk
from rank_bm25 import BM25Okapi
from reference import adam_of_one, cosine, small_config
from safetensors.torch import load_file
from torch.func import functional_call
from torch.nn.functional import log_softmax
from transformers import AutoModelForCausalLM, AutoTokenizer

from gradsift.builder import build as builder
from gradsift.data.encode import Encoder
from gradsift.data.targets import read_targets
from gradsift.datastore.store import Store
from gradsift.gradients import store_model
from gradsift.gradients.adam import make_update
from gradsift.gradients.extract import FeatureExtractor
from gradsift.gradients.per_example import PerExampleGradients
from gradsift.gradients.projection import Projector, make_projector
from gradsift.model import load
from gradsift.model.lora import attach_adapter, set_adapter
from gradsift.runtime.progress import Progress
from gradsift.scoring import score_targets
from gradsift.selection.ranking import rank
from gradsift.text.words import tokenize
from gradsift.training.checkpoint import Checkpoint

CPU = torch.device("cpu")
POOL = [
    {"messages": [("user", "where is the cat?"), ("assistant", "on the mat")]},
    {"messages": [("user", "where is the dog?"), ("assistant", "the dog sat on the cat and the cat sat on the mat")]},
    {"messages": [("system", "be brief"), ("user", "the capital?"), ("assistant", "in the text")]},
    {"messages": [("user", "hi"), ("assistant", "hello"), ("user", "and you?"), ("assistant", "the same to you")]},
    {"messages": [("user", "nobody answers this")]},
    {"messages": [("user", "কলকাতা কোথায়?"), ("assistant", "ভারতে")]},
    {"messages": [("user", "pick: A or B"), ("assistant", "B")], "prefix": "The answer is:"},
    {"messages": [("user", "pick: C or D"), ("assistant", "the answer C")], "prefix": "The answer is:"},
    {"messages": [("user", "count"), ("assistant", "one two three four five six seven eight nine ten")]},
    {"messages": [("user", "the cat " * 20), ("assistant", "the dog " * 25 + "again")]},  # cut
    {"messages": [("user", "12 + 30"), ("assistant", "42")]},
    {"messages": [("user", "what is the question?"), ("assistant", "what is the answer?")]},
    {"messages": [("user", "say it"), ("assistant", "the cat sat")]},
]
TARGETS = [
    {"messages": [("user", "where is the mouse?"), ("assistant", "under the mat")], "subtask": "places"},
    {"messages": [("user", "pick: E or F"), ("assistant", "F")], "subtask": "letters", "prefix": "The answer is:"},
    {"messages": [("user", "where is the bird?"), ("assistant", "on the dog")], "subtask": "places"},
    {"messages": [("user", "ঢাকা কোথায়?"), ("assistant", "বাংলাদেশে")], "subtask": "bengali"},
    {"messages": [("user", "where is the capital?"), ("assistant", "in the country of the cat")], "subtask": "places"},
]
SUBTASKS = {"places": [0, 2, 4], "letters": [1], "bengali": [3]}  # in order of appearance
MAX_LENGTH = 128


def write(path: Path, rows: list[dict]) -> Path:
    lines = [{**row, "messages": [{"role": role, "content": text} for role, text in row["messages"]]} for row in rows]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@dataclass
class Answer:
    """One checkpoint's numbers by hand: gradients and Γ of usable pool rows, gradients of targets, and the rest."""

    weight: float
    pool: list[np.ndarray]
    updates: dict[str, list[np.ndarray]]
    targets: list[np.ndarray]
    losses: list[float]
    last_hidden: list[np.ndarray]
    target_hidden: list[np.ndarray]


def tokens_by_hand(tokenizer, row: dict, limit: int | None) -> tuple[list[int], list[bool]]:
    """ChatML piece by piece: special tokens and line breaks keep the pieces from merging."""
    ids: list[int] = []
    learned: list[bool] = []

    def piece(text: str, taught: bool) -> None:
        result = tokenizer.encode(text, add_special_tokens=False)
        ids.extend(result)
        learned.extend([taught] * len(result))

    answers = [at for at, (role, _) in enumerate(row["messages"]) if role == "assistant"]
    for at, (role, text) in enumerate(row["messages"]):
        piece(f"<|im_start|>{role}\n", False)
        if role == "assistant" and at == answers[-1] and "prefix" in row:
            piece(row["prefix"], False)
            text = " " + text  # given like the prompt, unless the tokenizer merges it with the answer
        piece(text + "<|im_end|>", role == "assistant")
        piece("\n", False)
    blank = tokenizer.encode(" ", add_special_tokens=False)[0]
    if "prefix" in row and ids[learned.index(True)] == blank:
        learned[learned.index(True)] = False
    return ids[:limit], learned[:limit]


def losses_and_gradient(model, lora: dict[str, torch.Tensor], scaling: float, ids: list[int], learned: list[bool]):
    """(ℓ, last hidden state, ∇ℓ as one float64 vector in the order of `lora`), LoRA merged into the weights."""
    lora = {name: tensor.clone().requires_grad_(True) for name, tensor in lora.items()}
    weights = {}
    for name, a in lora.items():
        if ".lora_A." in name:
            base = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            b = lora[name.replace("lora_A", "lora_B")]
            weights[base] = model.get_parameter(base).detach() + scaling * b @ a
    out = functional_call(model, weights, kwargs={"input_ids": torch.tensor([ids]), "output_hidden_states": True})
    log_p = log_softmax(out.logits[0], dim=-1)
    terms = [-log_p[at - 1, ids[at]] for at in range(1, len(ids)) if learned[at]]
    loss = sum(terms) / len(terms)
    gradient = torch.autograd.grad(loss, list(lora.values()))
    return (
        loss.item(),
        out.hidden_states[-1][0, -1].detach().numpy(),
        torch.cat([g.flatten() for g in gradient]).numpy(),
    )


def brute_force(store: Path, model_folder: Path, epochs: int) -> list[Answer]:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = reference.in_float64(AutoModelForCausalLM.from_pretrained(model_folder)).eval()
    log = json.loads((store / "warmup" / "log.json").read_text())
    rates = [[entry["learning_rate"] for entry in log if i < entry["epoch"] <= i + 1] for i in range(epochs)]
    means = [sum(of_epoch) / len(of_epoch) for of_epoch in rates]
    answers = []
    for i in range(epochs):
        folder = store / "checkpoints" / f"epoch-{i + 1}"
        lora = {
            name: tensor.double() for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items())
        }
        saved = load_file(folder / "moments.safetensors")
        m, v = (np.concatenate([saved[f"{name}.{k}"].double().flatten().numpy() for name in lora]) for k in "mv")
        t = sum(len(of_epoch) for of_epoch in rates[: i + 1])
        answer = Answer(means[i] / sum(means), [], {form: [] for form in FORMS}, [], [], [], [])
        for row in POOL:
            ids, learned = tokens_by_hand(tokenizer, row, MAX_LENGTH)
            if any(learned):
                loss, hidden, g = losses_and_gradient(model, lora, 4.0, ids, learned)
                answer.losses.append(loss)
                answer.last_hidden.append(hidden)
                answer.pool.append(g)
                for form in FORMS:
                    update = [adam_of_one(*coordinate, t, form) for coordinate in zip(g.tolist(), m, v, strict=True)]
                    answer.updates[form].append(np.array(update))
        for row in TARGETS:
            _, hidden, g = losses_and_gradient(model, lora, 4.0, *tokens_by_hand(tokenizer, row, None))
            answer.targets.append(g)
            answer.target_hidden.append(hidden)
        answers.append(answer)
    return answers


def equation_two(weights, pool_side, target_side) -> np.ndarray:
    """Σ_i w_i cos(mean of j's targets, row), (rows, subtasks), in loops. pool_side, target_side: per checkpoint."""
    scores = np.zeros((len(pool_side[0]), len(SUBTASKS)))
    for weight, rows, targets in zip(weights, pool_side, target_side, strict=True):
        for j, members in enumerate(SUBTASKS.values()):
            mean = sum(targets[k] for k in members) / len(members)
            for z, row in enumerate(rows):
                scores[z, j] += weight * cosine(mean, row)
    return scores


def order_of(scores: np.ndarray) -> list[int]:
    best = [max(row) for row in scores.tolist()]
    return sorted(range(len(best)), key=lambda z: -best[z])


def agrees(order: list[int], scores: np.ndarray, margin: float) -> bool:
    """Whether an order is that of the scores; rows closer than the margin may be in either order."""
    best = scores.max(1)
    return all(best[order[i]] > best[order[k]] - margin for i in range(len(order)) for k in range(i + 1, len(order)))


FORMS = ("paper", "adamw", "released")


class Unprojected(Projector):
    """The identity in place of Π: every parameter has its own range of the vector. Passes for the sparse projector."""

    kind = "sparse"

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.start, end = {}, 0
        for name in sorted(self.shapes):
            self.start[name] = end
            end += self._size(name)
        assert end == self.dim

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        out[:, self.start[name] : self.start[name] + gradients.shape[1]] += gradients


P = 2 * (4 * (32 + 32) + 2 * 4 * (32 + 16) + 4 * (32 + 32))  # rank 4 on q, k, v, o of two layers


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    return write(folder / "pool.jsonl", POOL), write(folder / "targets.jsonl", TARGETS)


def make_store(model: Path, files: tuple[Path, Path], out: Path, **changes) -> Store:
    config = small_config(model, max_length=MAX_LENGTH, gradients=("adam", "sgd"), store_dtype="fp16", **changes)
    return builder.build([files[0]], out, config, progress=Progress(quiet=True))


@pytest.fixture(scope="module")
def store(tiny_model, files, tmp_path_factory) -> Store:
    """Built by the public function with the default projection and Adam's form."""
    return make_store(tiny_model, files, tmp_path_factory.mktemp("built") / "store", dim=256)


@pytest.fixture(scope="module")
def answers(store, tiny_model) -> list[Answer]:
    return brute_force(store.path, tiny_model, 2)


@pytest.fixture(scope="module")
def targets(files):
    return read_targets(files[1]).rows


def features_without_projection(store: Store, epoch: int, kinds: dict[str, str], rows: list[dict], limit: int | None):
    """What the engine computes for rows at a checkpoint, before projection and quantizing: kind -> (rows, P)."""
    folder = store.path / "checkpoints" / store.epochs[epoch]
    base = load.load_model(store.manifest.config.model, torch.float32, CPU).model
    peft, checkpoint = attach_adapter(base, folder), Checkpoint.load(folder)
    set_adapter(peft, checkpoint.adapter)
    gradients = PerExampleGradients(peft)
    encoder = Encoder(load.load_tokenizer(store.manifest.config.model), "chat")
    encoded = [encoder.encode(talk(*row["messages"], prefix=row.get("prefix", "")), limit) for row in rows]
    updates = {name: make_update(kind, form, checkpoint, CPU) for name, (kind, form) in kinds.items()}
    identity = Unprojected(0, epoch + 1, P, gradients.shapes, CPU)
    result = FeatureExtractor(gradients, identity, updates, 256).extract([row for row in encoded if row.n_answer])
    return {name: x.double().numpy() for name, x in result.projected.items()}


class TestByHand:
    def test_rows_that_are_scored(self, store):
        pool = store.pool()
        assert pool.index[pool["status"] == "excluded"].tolist() == [4]
        assert store.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12]
        assert pool.index[pool["n_cut"] > 0].tolist() == [9]

    def test_tokens(self, store, tiny_model):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        encoder = Encoder(load.load_tokenizer(str(tiny_model)), "chat")
        pool = store.pool()
        for number in store.rows:
            row = POOL[number]
            ids, learned = tokens_by_hand(tokenizer, row, MAX_LENGTH)
            encoded = encoder.encode(talk(*row["messages"], prefix=row.get("prefix", "")), MAX_LENGTH)
            assert (encoded.ids, encoded.supervised) == (ids, learned)
            counts = pool.loc[number, ["n_prompt_tokens", "n_answer_tokens"]].tolist()
            assert counts == [len(ids) - sum(learned), sum(learned)]

    def test_weights(self, store, answers):
        np.testing.assert_allclose(store.weights, [answer.weight for answer in answers], rtol=1e-12)
        assert store.weights.sum() == pytest.approx(1)
        assert store.weights[0] > store.weights[1] > 0

    def test_norms_and_losses(self, store, answers):
        metrics = store.metrics()
        for epoch, answer in zip(store.epochs, answers, strict=True):
            result = metrics[metrics["epoch"] == epoch]
            assert result["row"].tolist() == store.rows.tolist()
            np.testing.assert_allclose(result["loss"], answer.losses, rtol=1e-5)
            np.testing.assert_allclose(result["grad_norm"], np.linalg.norm(answer.pool, axis=1), rtol=1e-5)
            np.testing.assert_allclose(
                result["update_norm"], np.linalg.norm(answer.updates["paper"], axis=1), rtol=1e-4
            )

    def test_every_form_of_the_update_before_projection(self, store, answers):
        kinds = {"sgd": ("sgd", "paper"), **{form: ("adam", form) for form in FORMS}}
        for epoch, answer in enumerate(answers):
            result = features_without_projection(store, epoch, kinds, POOL, MAX_LENGTH)
            aims = features_without_projection(store, epoch, {"sgd": ("sgd", "paper")}, TARGETS, None)["sgd"]
            for name, expected in {"sgd": answer.pool, **answer.updates}.items():
                for z, row in enumerate(expected):
                    assert cosine(result[name][z], row) > 1 - 1e-8, (name, z)
                    for k, target in enumerate(answer.targets):
                        assert abs(cosine(result[name][z], aims[k]) - cosine(row, target)) < 1e-5, (name, z, k)

    def test_ranking_before_projection_is_identical(self, store, answers):
        """Eq. 2 on the engine's own float32 vectors, not quantized: no row may change its place."""
        for form in FORMS:
            expected = equation_two(store.weights, [a.updates[form] for a in answers], [a.targets for a in answers])
            result = equation_two(
                store.weights,
                [features_without_projection(store, i, {"x": ("adam", form)}, POOL, MAX_LENGTH)["x"] for i in range(2)],
                [features_without_projection(store, i, {"x": ("sgd", form)}, TARGETS, None)["x"] for i in range(2)],
            )
            np.testing.assert_allclose(result, expected, atol=1e-5)
            assert order_of(result) == order_of(expected)


class TestPublicFunctions:
    """`build`, `score_targets` and `rank`, called as users call them."""

    @pytest.mark.parametrize("form", FORMS)
    def test_without_projection(self, tiny_model, files, targets, tmp_path, monkeypatch, form):
        """With the identity in place of Π, only rounding to 16 bits is left between the engine and the script."""
        monkeypatch.setattr(store_model, "make_projector", lambda kind, *args: Unprojected(*args))
        store = make_store(tiny_model, files, tmp_path / "store", dim=P, adam=form)
        answers = brute_force(store.path, tiny_model, 2)
        expected = equation_two(store.weights, [a.updates[form] for a in answers], [a.targets for a in answers])
        result = rank(score_targets.score_targets(store, targets), "less")
        np.testing.assert_allclose(result.score, expected.max(1), atol=1e-4)
        assert result.best_subtask.tolist() == expected.argmax(1).tolist()
        assert agrees(result.order.tolist(), expected, 2e-4)

    @pytest.mark.parametrize("projection", ["sparse", "rademacher"])
    @pytest.mark.parametrize("store_dtype", ["fp16", "int8"])
    def test_with_projection(self, tiny_model, files, targets, tmp_path, answers, store, projection, store_dtype):
        """Both sides of the script projected by the matrix that the store names; quantizing stays within its bounds."""
        config = store.manifest.config.model_copy(update={"projection": projection, "store_dtype": store_dtype})
        built = builder.build([files[0]], tmp_path / "store", config, progress=Progress(quiet=True))
        matrices = [self._matrix(built, epoch) for epoch in range(2)]
        pool_side = [np.array(a.updates["paper"]) @ pi for a, pi in zip(answers, matrices, strict=True)]
        target_side = [np.array(a.targets) @ pi for a, pi in zip(answers, matrices, strict=True)]
        for epoch, rows in enumerate(pool_side):
            kept = torch.cat([block for shard in built.shards("adam", epoch) for _, block in shard.blocks()])
            cosines = [cosine(x, row) for x, row in zip(kept.numpy(), rows, strict=True)]
            assert min(cosines) > 1 - {"fp16": 1e-6, "int8": 2e-4}[store_dtype]
        expected = equation_two(built.weights, pool_side, target_side)
        result = rank(score_targets.score_targets(built, targets), "less")
        margin = {"fp16": 1e-4, "int8": 4e-3}[store_dtype]
        np.testing.assert_allclose(result.score, expected.max(1), atol=margin)
        assert agrees(result.order.tolist(), expected, 2 * margin)

    @staticmethod
    def _matrix(store: Store, epoch: int) -> np.ndarray:
        """Π of a checkpoint, (P, d), rows in the order of the script's vectors."""
        config = store.manifest.config
        saved = load_file(store.path / "checkpoints" / store.epochs[epoch] / "adapter_model.safetensors")
        shapes = {name: tuple(tensor.shape) for name, tensor in saved.items()}
        projector = make_projector(config.projection, config.seed, epoch + 1, config.dim, shapes, CPU)
        assert projector.id == store.manifest.checkpoints[epoch].projector
        blocks = []
        for name in sorted(shapes):
            block = torch.zeros(saved[name].numel(), config.dim)
            projector.add(name, torch.eye(len(block)), block)
            blocks.append(block.double().numpy())
        return np.concatenate(blocks)

    def test_plain_gradients_and_hidden_states(self, store, targets, answers):
        scoring = score_targets.score_targets(store, targets, ("less", "rds"), "sgd")
        matrices = [self._matrix(store, epoch) for epoch in range(2)]
        sides = [(a.pool @ pi, a.targets @ pi) for a, pi in zip(answers, matrices, strict=True)]
        expected = equation_two(store.weights, [side[0] for side in sides], [side[1] for side in sides])
        np.testing.assert_allclose(rank(scoring, "less", gradient="sgd").score, expected.max(1), atol=1e-4)
        expected = equation_two(store.weights, [a.last_hidden for a in answers], [a.target_hidden for a in answers])
        result = rank(scoring, "rds")
        np.testing.assert_allclose(result.score, expected.max(1), atol=1e-4)
        assert agrees(result.order.tolist(), expected, 2e-4)

    def test_words(self, store, targets):
        """A document is all messages of a row, a query all of a target; means within subtasks, then the best."""
        usable = [row for row in POOL if any(role == "assistant" for role, _ in row["messages"])]
        texts = [tokenize(" ".join(text for _, text in row["messages"])) for row in usable]
        queries = [tokenize(" ".join(text for _, text in row["messages"])) for row in TARGETS]
        index = BM25Okapi(texts)
        single = np.stack([index.get_scores(query) for query in queries], 1)
        expected = np.stack([single[:, members].mean(1) for members in SUBTASKS.values()], 1)
        result = rank(score_targets.score_targets(store, targets, ("bm25",)), "bm25")
        np.testing.assert_allclose(result.score, expected.max(1), atol=1e-5)
