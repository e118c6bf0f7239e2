"""A store's model: loaded for a session, released after it, checked against the store, at every checkpoint in turn."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from gradsift.data.encode import Encoder
from gradsift.datastore.store import Store
from gradsift.gradients import store_model
from gradsift.gradients.store_model import StoreModel
from gradsift.model import load
from gradsift.model.load import ModelError
from gradsift.runtime.errors import StoreError
from gradsift.runtime.progress import Progress

QUIET = Progress(quiet=True)


def with_manifest(store: Store, **changed) -> Store:
    return Store(store.path, store.manifest.model_copy(update=changed))


def test_weights_go_with_the_session_and_wait_for_callers_that_come_back(tiny_store):
    model, exact = StoreModel(tiny_store), StoreModel(tiny_store, exact=True)
    with model.session(QUIET):
        model.at(0)
        weights = weakref.ref(model.base.module)
    gc.collect()
    assert weights() is None
    with pytest.raises(RuntimeError, match="is not loaded"):
        _ = model.base.module
    with exact.session(QUIET):
        exact.at(1)
        weights = weakref.ref(exact.base.module)
    with exact.session(QUIET):
        assert exact.base.module is weights()


def test_holds_each_checkpoint_in_turn_and_its_projector(tiny_store):
    model = StoreModel(tiny_store)
    with model.session(QUIET):
        for epoch in (0, 1, 0):
            gradients, checkpoint = model.at(epoch)
            assert gradients.weights.keys() == checkpoint.adapter.keys()
            for name, weight in gradients.weights.items():
                assert torch.equal(weight, checkpoint.adapter[name])
            assert model.projector(epoch).id == tiny_store.manifest.checkpoints[epoch].projector


def test_encodes_rows_as_the_build_did(tiny_store):
    model, pool = StoreModel(tiny_store), tiny_store.pool()
    config = tiny_store.manifest.config
    rows = tiny_store.rows[[5, 2, 9]].tolist()
    encoder = Encoder(load.load_tokenizer(config.model), config.template)
    assert model.encoder.fingerprint == encoder.fingerprint
    conversations = tiny_store.texts(rows)["conversation"]
    assert list(model.encode(rows)) == [encoder.encode(one, model.max_length) for one in conversations]
    for row, encoded, pieces in zip(rows, model.encode(rows), model.pieces(rows), strict=True):
        assert (encoded.n_prompt, encoded.n_answer) == tuple(pool.loc[row, ["n_prompt_tokens", "n_answer_tokens"]])
        assert len(encoded.ids) <= model.max_length
        assert sum(piece.n_tokens for piece in pieces) == encoded.n_answer


def test_kept_tokens_need_no_tokenizer(tiny_store, monkeypatch):
    monkeypatch.setattr(load, "load_tokenizer", lambda *_: pytest.fail("a tokenizer was loaded"))
    assert all(encoded.n_answer for encoded in StoreModel(tiny_store).encode(tiny_store.rows))


def test_what_is_not_the_stores_is_refused(tiny_store, monkeypatch):
    weights, tokens = {"model_fingerprint": "another"}, {"encoder_fingerprint": "another"}
    with (
        pytest.raises(StoreError, match="its weights have changed"),
        StoreModel(with_manifest(tiny_store, **weights)).session(QUIET),
    ):
        pass
    first = tiny_store.manifest.checkpoints[0].model_copy(update={"projector": "another"})
    other = with_manifest(tiny_store, checkpoints=(first, *tiny_store.manifest.checkpoints[1:]))
    model = StoreModel(other)
    with model.session(QUIET):
        model.at(0)
        with pytest.raises(StoreError, match=r"was built with projector .*, but this version of gradsift makes"):
            model.projector(0)
    monkeypatch.setattr(load, "load_model", lambda *_: pytest.fail("the weights were loaded first"))
    with pytest.raises(StoreError, match="another tokenizer or template"):
        StoreModel(with_manifest(tiny_store, **tokens)).load(QUIET)


@pytest.fixture
def other_layers(monkeypatch):
    """As with imported checkpoints of a trainer: each may have a different LoRA configuration."""
    real = Store.checkpoint
    monkeypatch.setattr(
        Store,
        "checkpoint",
        lambda self, epoch: replace(real(self, epoch), adapter_config={**real(self, epoch).adapter_config, "n": epoch}),
    )


def test_a_checkpoint_with_other_layers_replaces_the_layers(tiny_store, other_layers):
    attached = []
    model = StoreModel(tiny_store)
    with model.session(QUIET):
        for epoch in (0, 1, 1):
            gradients, _ = model.at(epoch)
            attached.append(gradients.model)
            assert len(gradients.weights) == len(tiny_store.checkpoint(epoch).adapter)
    assert attached[0] is not attached[1] is attached[2]


def test_layers_that_were_taken_off_are_attached_again_after_a_failure(tiny_store, other_layers, monkeypatch):
    def damaged(*_):
        raise ModelError("damaged")

    model = StoreModel(tiny_store, exact=True)
    with model.session(QUIET):
        before, _ = model.at(0)
        with monkeypatch.context() as patch:
            patch.setattr(store_model, "attach_adapter", damaged)
            with pytest.raises(ModelError, match="damaged"):
                model.at(1)
        after, _ = model.at(0)
        assert after is not before
        assert {id(weight) for weight in after.weights.values()} <= {id(p) for p in model.base.module.parameters()}


def test_wrong_weights_are_not_kept_for_the_next_question(tiny_store, monkeypatch):
    real, loads = load.load_model, []

    def changed_at_first(*given):
        loads.append(given)
        loaded = real(*given)
        return loaded if len(loads) > 1 else replace(loaded, fingerprint="another")

    monkeypatch.setattr(load, "load_model", changed_at_first)
    model = StoreModel(tiny_store, exact=True)
    with pytest.raises(StoreError, match="its weights have changed"), model.session(QUIET):
        pass
    with model.session(QUIET):
        model.at(0)
    assert len(loads) == 2
