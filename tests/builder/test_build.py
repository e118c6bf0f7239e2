"""One build after another in the same place: what is refused, what only adds a note, what begins anew."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stores import assert_same_files, contents

import gradsift
from gradsift.builder import build as builder
from gradsift.builder import extraction
from gradsift.builder import ingest as ingesting
from gradsift.builder.destination import refuse_place
from gradsift.builder.ingest import NothingUsableError
from gradsift.config import BuildConfig
from gradsift.data.pool import PoolError, read_rows
from gradsift.data.reading import reading_of
from gradsift.data.schemas import Reading
from gradsift.datastore.store import Store
from gradsift.evaluation.plan import store_recipe
from gradsift.gradients.store_model import StoreModel
from gradsift.model import load
from gradsift.runtime.errors import GradsiftError, StoreError, UsageError
from gradsift.runtime.progress import Cancelled, Progress


def build(pool: Path | str, out: Path, config: BuildConfig, **options: bool) -> list[str]:
    """Build quietly; returns the notes it made."""
    progress = Progress(quiet=True)
    builder.build([pool], out, config, progress=progress, **options)
    return progress.status.notes


@pytest.fixture
def own_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that the test may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "own-model"))


def interrupted(
    pool: Path, out: Path, config: BuildConfig, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """A build cut off where it would call `owner.name` first."""

    def cut(*args: object, **named: object) -> None:
        raise Cancelled

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut)
        with pytest.raises(Cancelled):
            build(pool, out, config)


def test_two_builds_give_the_same_bytes(
    tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path
) -> None:
    build(tiny_pool, tmp_path / "again", tiny_config)
    assert_same_files(tmp_path / "again", tiny_store.path)


def test_two_builds_with_two_threads_give_the_same_bytes(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name in ("one", "other"):
            build(tiny_pool, tmp_path / name, tiny_config)
    finally:
        torch.set_num_threads(before)
    assert Store.open(tmp_path / "one").manifest.threads == 2
    assert_same_files(tmp_path / "one", tmp_path / "other")


def test_a_finished_store_is_left_alone_and_no_model_is_loaded(
    tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_model", None)
    before = {path: path.stat().st_mtime_ns for path in tiny_copy.path.rglob("*") if path.is_file()}
    build(tiny_pool, tiny_copy.path, tiny_config)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dim": 512}, "dim 256 there, 512 here"),
        ({"seed": 5}, "seed 0 there, 5 here"),
        ({"lr": 1e-3, "epochs": 3}, "epochs 2 there, 3 here; lr 0.002 there, 0.001 here"),
        ({"projection": "rademacher"}, "projection 'sparse' there, 'rademacher' here"),
        ({"limit_per_source": 5}, "limit_per_source None there, 5 here"),
        ({"template": "tulu"}, "another tokenizer or template"),
    ],
)
def test_other_parameters_are_refused_by_name(
    tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig, changed: dict, message: str
) -> None:
    before = contents(tiny_copy.path)
    with pytest.raises(StoreError, match="--restart") as caught:
        build(tiny_pool, tiny_copy.path, tiny_config.model_copy(update=changed))
    assert message in str(caught.value)
    assert contents(tiny_copy.path) == before


def test_other_parameters_are_welcome_while_nothing_is_computed(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, tiny_store: Store
) -> None:
    wrong = tiny_config.model_copy(update={"lora_targets": ("no_proj",)})
    with pytest.raises(load.ModelError, match="no layer named no_proj; its linear layers are called down_proj, "):
        build(tiny_pool, tmp_path, wrong)
    build(tiny_pool, tmp_path, tiny_config)
    assert_same_files(tmp_path, tiny_store.path)


def test_another_pool_is_refused(tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path) -> None:
    pool = Path(shutil.copytree(tiny_pool, tmp_path / "pool"))
    build(pool, tiny_copy.path, tiny_config)  # the same content elsewhere is the same pool
    with open(pool / "talk.jsonl", "a") as file:
        file.write("\n")
    with pytest.raises(StoreError, match="built with another pool"):
        build(pool, tiny_copy.path, tiny_config)


def test_another_tokenizer_is_refused(
    tiny_pool: Path, tiny_config: BuildConfig, own_model: Path, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"model": str(own_model)})
    build(tiny_pool, tmp_path / "store", config)
    template = own_model / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", "<|im_end|> "))
    with pytest.raises(StoreError, match="another tokenizer or template"):
        build(tiny_pool, tmp_path / "store", config)
    with pytest.raises(StoreError, match="another tokenizer or template"):
        gradsift.score(Store.open(tmp_path / "store"), _targets())


@pytest.mark.parametrize(("owner", "name"), [(builder.Warmup, "run"), (extraction.FeatureExtractor, "extract")])
def test_changed_weights_are_refused_at_every_stage(
    tiny_pool: Path,
    tiny_config: BuildConfig,
    own_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
) -> None:
    config = tiny_config.model_copy(update={"model": str(own_model)})
    interrupted(tiny_pool, tmp_path / "store", config, monkeypatch, owner, name)
    before = contents(tmp_path / "store")
    _change_weights(own_model)
    with pytest.raises(StoreError, match="its weights have changed since"):
        build(tiny_pool, tmp_path / "store", config)
    assert contents(tmp_path / "store") == before


def test_a_store_is_finished_in_the_dtype_it_was_begun_with(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as gpu:
        gpu.setattr("gradsift.builder.build.resolve_dtype", lambda choice, device: torch.bfloat16)
        interrupted(tiny_pool, tmp_path / "store", tiny_config, monkeypatch, extraction.FeatureExtractor, "extract")
    build(tiny_pool, tmp_path / "store", tiny_config)
    assert Store.open(tmp_path / "store").manifest.dtype == "bfloat16"


def test_scoring_with_changed_weights_is_refused(
    tiny_pool: Path, tiny_config: BuildConfig, own_model: Path, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"model": str(own_model)})
    build(tiny_pool, tmp_path / "store", config)
    _change_weights(own_model)
    with pytest.raises(StoreError, match="its weights have changed since"):
        gradsift.score(Store.open(tmp_path / "store"), _targets())


def test_a_store_of_another_projector_is_refused(tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig) -> None:
    last = tiny_copy.manifest.checkpoints[-1].model_copy(update={"projector": "sparse-of-old"})
    checkpoints = (*tiny_copy.manifest.checkpoints[:-1], last)
    other = Store(tiny_copy.path, tiny_copy.manifest.model_copy(update={"checkpoints": checkpoints}))
    other.save_manifest()
    with pytest.raises(StoreError, match="but this version of gradsift makes"):
        build(tiny_pool, tiny_copy.path, tiny_config)
    with pytest.raises(GradsiftError, match="built with projector sparse-of-old"):
        gradsift.score(Store.open(tiny_copy.path), _targets())


def test_another_library_version_is_remarked_and_harmless(
    tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    versions = {**tiny_copy.manifest.versions, "torch": "1.13.1"}
    Store(tiny_copy.path, tiny_copy.manifest.model_copy(update={"versions": versions, "threads": 99})).save_manifest()
    notes = build(tiny_pool, tiny_copy.path, tiny_config)
    assert any(note.startswith("The store was begun with torch 1.13.1, this run has") for note in notes)
    assert any(note.startswith("The store was begun with threads 99") for note in notes)


def test_restart_begins_anew_and_keeps_nothing_old(
    tiny_copy: Store, tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    (tiny_copy.path / "scorings" / "old").mkdir(parents=True)
    other = tiny_config.model_copy(update={"seed": 5, "epochs": 1, "store_dtype": "bit"})
    build(tiny_pool, tiny_copy.path, other, restart=True)
    assert Store.open(tiny_copy.path).epochs == ["epoch-1"]
    assert not (tiny_copy.path / "scorings").exists()
    build(tiny_pool, tiny_copy.path, tiny_config, restart=True)
    assert_same_files(tiny_copy.path, tiny_store.path)


def test_restart_replaces_a_damaged_manifest(
    tiny_copy: Store, tiny_store: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    (tiny_copy.path / "manifest.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        build(tiny_pool, tiny_copy.path, tiny_config)
    build(tiny_pool, tiny_copy.path, tiny_config, restart=True)
    assert_same_files(tiny_copy.path, tiny_store.path)


@pytest.mark.parametrize("wrong", ["pool", "content", "model", "layers"])
def test_a_restart_that_cannot_begin_loses_nothing(
    tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, wrong: str
) -> None:
    before = contents(tiny_copy.path)
    pool, config = tiny_pool, tiny_config
    if wrong == "pool":
        pool = tmp_path / "missing.jsonl"
    elif wrong == "content":
        pool = tmp_path / "bad.jsonl"
        pool.write_text("{\n")
    elif wrong == "layers":
        config = tiny_config.model_copy(update={"lora_targets": ("query_key_value",)})
    else:
        config = tiny_config.model_copy(update={"model": "/no/such/model"})
    with pytest.raises((PoolError, NothingUsableError, load.ModelError)):
        build(pool, tiny_copy.path, config, restart=True)
    assert contents(tiny_copy.path) == before


@pytest.mark.parametrize("restart", [False, True])
def test_a_folder_with_somebody_elses_work_is_refused(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, restart: bool
) -> None:
    mine = tmp_path / "checkpoints" / "weights"
    mine.parent.mkdir()
    mine.touch()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"contains checkpoints but no manifest\.json"):
            build(tiny_pool, tmp_path, tiny_config, restart=restart)
    assert mine.exists()


def test_a_store_inside_its_pool_is_refused(tiny_pool: Path, tiny_config: BuildConfig) -> None:
    with pytest.raises(UsageError, match="inside the pool"):
        build(tiny_pool, tiny_pool / "store", tiny_config)
    assert not (tiny_pool / "store").exists()


def test_a_store_that_its_pools_pattern_matches_is_refused(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused at once, not only when the folder exists and the same command should resume."""
    shutil.copytree(tiny_pool, tmp_path / "data" / "pool")
    monkeypatch.chdir(tmp_path)
    for pattern in ("data/*", str(tmp_path / "da*")):
        with pytest.raises(UsageError, match="inside the pool"):
            build(pattern, tmp_path / "data" / "store", tiny_config)
    assert not (tmp_path / "data" / "store").exists()
    place = tmp_path / "data" / "store"
    for pattern in ("**", "data/**", "data/../data/s*", f"{tmp_path}/*/store", "d*"):
        with pytest.raises(UsageError, match="inside the pool"):
            refuse_place(place, [pattern], ())
    (tmp_path / "data[1]").mkdir()
    for pattern in ("data/*/*.jsonl", "data/*.jsonl", "*/*/deeper", "org/name", "data[1]"):
        refuse_place(place, [pattern], ())
    refuse_place(tmp_path / ".hidden" / "store", ["*", "*/store"], ())
    refuse_place(tmp_path / "data1" / "store", ["data[1]"], ())


def test_a_stores_own_checkpoints_are_not_thrown_away_by_the_store_they_are_for(
    tiny_copy: Store, tiny_pool: Path, tiny_config: BuildConfig
) -> None:
    before = contents(tiny_copy.path)
    given = (str(tiny_copy.path / "checkpoints" / "epoch-1"),)
    with pytest.raises(UsageError, match=r"lies inside .*copy it elsewhere first"):
        build(tiny_pool, tiny_copy.path, tiny_config.model_copy(update={"checkpoints": given}), restart=True)
    assert contents(tiny_copy.path) == before


def test_a_draft_that_a_build_was_killed_over_is_still_a_store(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build is killed after the draft's pool was removed and before the new manifest was written."""
    out, quiet = tmp_path / "store", Progress(quiet=True)
    drafted = builder.begin([tiny_pool], out, tiny_config, progress=quiet)
    gradsift.score(drafted, _targets(), ["draft"])
    other = tiny_config.model_copy(update={"lr": 1e-3})
    with monkeypatch.context() as killed:
        killed.setattr(Store, "save_manifest", _stop)
        with pytest.raises(KeyboardInterrupt):
            builder.begin([tiny_pool], out, other, progress=quiet)
    assert builder.begin([tiny_pool], out, other, progress=quiet).manifest.config.lr == 1e-3
    assert (out / "representations").is_dir()


def _stop(self: Store) -> None:
    raise KeyboardInterrupt


def test_a_worker_with_another_template_makes_no_features(tiny_copy: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with an older snapshot of the same weights."""
    StoreModel(tiny_copy).load(Progress(quiet=True))
    real = load.load_tokenizer

    def older(model: str) -> Any:
        tokenizer = real(model)
        tokenizer.chat_template = tokenizer.chat_template.replace("user", "User") + " "
        return tokenizer

    monkeypatch.setattr(load, "load_tokenizer", older)
    with pytest.raises(StoreError, match="tokenizer or chat template"):
        StoreModel(tiny_copy).load(Progress(quiet=True))


def test_an_export_into_the_store_is_refused(tiny_copy: Store) -> None:
    before = contents(tiny_copy.path)
    with pytest.raises(UsageError, match="is a store, which an export would overwrite"):
        gradsift.select(tiny_copy, _targets(), "5%", tiny_copy.path)
    assert contents(tiny_copy.path) == before


def test_notes_tell_what_was_left_out_cut_and_too_short(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path
) -> None:
    config = tiny_config.model_copy(update={"max_length": 10_000, "epochs": 1})
    notes = " ".join(build(tiny_pool, tmp_path / "long", config))
    assert "--max-length is lowered to 512, the model's window" in notes
    config = tiny_config.model_copy(update={"max_length": 64, "epochs": 1})
    notes = build(tiny_pool, tmp_path / "short", config)
    assert "2 of 42 rows are excluded; gradsift inspect lists each with its reason." in notes
    truncated = sum(source.truncated for source in Store.open(tmp_path / "short").manifest.sources)
    assert truncated > 0
    assert f"{truncated} rows are cut at 64 tokens." in notes
    assert any("only 5 optimizer steps per epoch" in note for note in notes)


def test_nothing_of_this_machine_is_in_a_store(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A store that is copied, or built elsewhere from the same data, has the same bytes."""
    place = str(tiny_store.path.parent)
    for name, content in contents(tiny_store.path).items():
        assert place.encode() not in content, name
    assert json.loads((tiny_store.path / "manifest.json").read_text())["parts"][0]["inputs"][0].startswith(
        "facts.jsonl "
    )


def test_the_package_shows_its_api() -> None:
    for name in ("build", "BuildConfig", "Store", "read_targets", "score", "select"):
        assert callable(getattr(gradsift, name))
    assert gradsift.build is builder.build
    with pytest.raises(AttributeError, match="has no attribute 'train'"):
        _ = gradsift.train


def _targets() -> list:
    from gradsift.data.targets import parse_targets

    return parse_targets("Q: where is the cat?\nA: in box 3").rows


def _change_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights = {name: tensor + torch.full_like(tensor, 1e-3) for name, tensor in weights.items()}
    save_file(weights, model / "model.safetensors", {"format": "pt"})


def test_the_pool_is_read_before_the_device_is_held(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may use it in the meantime."""
    events = []
    ingest = builder.ingest

    @contextmanager
    def held(*_: object) -> Iterator[None]:
        events.append("held")
        yield
        events.append("free")

    monkeypatch.setattr(builder, "exclusive", held)
    monkeypatch.setattr(builder, "ingest", lambda *given: events.append("read") or ingest(*given))
    builder.begin([tiny_pool], tmp_path / "begun", tiny_config, progress=Progress(quiet=True))
    build(tiny_pool, tmp_path / "store", tiny_config)
    build(tiny_pool, tmp_path / "store", tiny_config, restart=True)
    assert events == ["read", "held", "free"] * 3


MOODY = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' + mood|default('plain') + '\n'"
    " + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant ' + mood|default('plain') + '\n' }}{% endif %}"
)


def test_a_templates_options_are_the_stores(tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path) -> None:
    config = tiny_config.model_copy(update={"template": MOODY, "template_options": {"mood": "merry"}, "epochs": 1})
    build(tiny_pool, tmp_path / "merry", config)
    store = Store.open(tmp_path / "merry")
    model = StoreModel(store)
    tokens = model.encode(store.rows[:1])
    assert "user merry" in model.encoder.tokenizer.decode(tokens[0].ids)
    assert list(tokens) == [model.encoder.encode(store.texts(store.rows[:1])["conversation"][0], model.max_length)]
    with pytest.raises(StoreError, match=r"template_options {'mood': 'merry'} there, {} here; another tokenizer"):
        build(tiny_pool, tmp_path / "merry", config.model_copy(update={"template_options": {}}))
    recipe = store_recipe(store)
    assert recipe.config(0).template_options == {"mood": "merry"}
    assert store_recipe(store, template_options={}).template_options == {}


def test_the_reading_is_the_stores(
    tiny_pool: Path, tiny_config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def rows(paths: Any, taken: Any = (), reading: Any = None) -> Any:
        read.append(reading)
        return read_rows(paths, taken)

    monkeypatch.setattr(ingesting, "read_rows", rows)
    changed = {
        "columns": (("user", "q"), ("assistant", "a")),
        "take": ("label",),
        "source_column": "origin",
        "epochs": 1,
    }
    config = tiny_config.model_copy(update=changed)
    build(tiny_pool / "facts.jsonl", tmp_path / "store", config)
    with pytest.raises(StoreError, match="take \\('label',\\) there"):
        build(tiny_pool / "talk.jsonl", tmp_path / "store", config.model_copy(update={"take": ()}), append=True)
    build(tiny_pool / "talk.jsonl", tmp_path / "store", config, append=True)
    assert read == [Reading(config.columns, ("label",), "origin")] * 2
    recipe = store_recipe(Store.open(tmp_path / "store"))
    assert reading_of(recipe.config(0)) == read[0]
