"""The commands as processes: what they print where, their exit codes, the effects of their flags."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from commands import gradsift, start
from stores import assert_same_files, contents

from gradsift.config import BuildConfig
from gradsift.datastore.store import Store

COMMANDS = ("plan", "build", "score", "select", "explain", "inspect", "verify", "doctor", "demo", "app")


@pytest.fixture
def flags(tiny_config: BuildConfig) -> list[object]:
    """`tiny_config` as flags."""
    c = tiny_config
    pairs = {"model": c.model, "max-length": c.max_length, "warmup-fraction": c.warmup_fraction, "epochs": c.epochs}
    pairs |= {"batch-size": c.batch_size, "lr": c.lr, "lora-rank": c.lora_rank, "dim": c.dim}
    return [word for name, value in pairs.items() for word in (f"--{name}", value)] + [
        "--gradient",
        "adam",
        "--gradient",
        "sgd",
    ]


@pytest.mark.slow
def test_python_m_gradsift_is_the_command(
    tiny_store: Store, tiny_pool: Path, flags: list[object], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "gradsift", "build", tiny_pool, *flags, "--out", "store"]
    done = subprocess.run([str(word) for word in command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == f"{tmp_path / 'store'}\n"
    assert "Traceback" not in done.stderr
    assert_same_files(tmp_path / "store", tiny_store.path)
    wrong = subprocess.run(
        [sys.executable, "-m", "gradsift", "verify", "no"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert (
        wrong.stderr == "gradsift: no is not a gradsift store: it has no manifest.json; make one with gradsift build.\n"
    )


def test_help_of_every_command_has_an_example() -> None:
    overview = gradsift("--help").out
    for name in COMMANDS:
        assert f"  {name} " in overview
        asked = gradsift(name, "--help")
        assert asked.code == 0
        assert f"Example: gradsift {name}" in asked.out
        assert asked.err == ""


def test_every_build_parameter_has_a_flag_and_its_default_is_shown() -> None:
    shown = " ".join(gradsift("build", "--help", COLUMNS="200").out.split())
    renamed = {"gradients": "gradient", "template_options": "template-option"}
    inner = {"token_budget", "shard_rows"}  # parameters of the store that have no flag
    for name, field in BuildConfig.model_fields.items():
        if name not in inner:
            flag = "--" + renamed.get(name, name).replace("_", "-")
            assert f"{flag} " in shown, flag
            if isinstance(field.default, int | float) and field.default and not isinstance(field.default, bool):
                assert f"[default: {field.default}]" in shown, flag


def test_wrong_use_is_exit_code_2(tmp_path: Path) -> None:
    for argv in ([], ["build"], ["nonsense"], ["build", "x", "--model", "m"], ["score", "s", "--out", "o"], ["verify"]):
        wrong = gradsift(*argv, cwd=tmp_path)
        assert wrong.code == 2, argv
        assert "Traceback" not in wrong.err
    assert list(tmp_path.iterdir()) == []


def test_a_broken_line_is_reported_and_the_rest_is_kept(flags: list[object], tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "where?"}, {"role": "assistant", "content": "here"}]
    good = json.dumps({"messages": turns})
    (tmp_path / "pool.jsonl").write_text("\n".join([good] * 6 + [good[:-9]] + [good] * 5) + "\n")
    built = gradsift("build", tmp_path / "pool.jsonl", *flags, "--out", tmp_path / "store")
    assert built.code == 0
    assert "1 of 12 rows are excluded; gradsift inspect lists each with its reason." in built.err
    assert "pool.jsonl: 11 messages, 1 unreadable" in built.err
    assert "pool.jsonl, line 7: not valid JSON" in built.err
    assert built.out == f"{tmp_path / 'store'}\n"
    shown = gradsift("inspect", tmp_path / "store")
    assert "rows 12 = 11 usable + 1 excluded; 0 cut" in shown.out
    assert "  pool.jsonl, line 7: not valid JSON" in shown.out
    assert len(Store.open(tmp_path / "store").rows) == 11


def test_inspect_as_json_adds_up(tiny_store: Store) -> None:
    shown = gradsift("inspect", tiny_store.path, "--json")
    assert shown.err == ""
    d = json.loads(shown.out, parse_constant=pytest.fail)
    assert d["rows"] == d["usable"] + len(d["excluded_rows"]) == 42
    assert sum(d["excluded"].values()) == len(d["excluded_rows"])
    assert sum(source["rows_in_store"] for source in d["sources"]) == d["rows"]
    assert sum(source["truncated"] for source in d["sources"]) == d["truncated"]
    assert sum(c["weight"] for c in d["checkpoints"]) == pytest.approx(1)
    assert sum(sum(counts.values()) for counts in d["schemas"].values()) == d["rows"]
    assert [(row["file"], row["line"]) for row in d["excluded_rows"]] == [("facts.jsonl", 7), ("talk.jsonl", 4)]
    assert d["complete"]
    assert d["not_finite_rows"] == []
    assert len(d["warmup"]) == 10
    files = [path for path in (tiny_store.path / "features").rglob("*") if path.is_file()]
    assert d["bytes"]["features"] == sum(path.stat().st_size for path in files)


def test_inspect_of_a_warmup_that_diverged(tiny_copy: Store) -> None:
    path = tiny_copy.path / "warmup" / "log.json"
    path.write_text(json.dumps([{**entry, "loss": float("nan")} for entry in json.loads(path.read_text())]))
    shown = json.loads(gradsift("inspect", tiny_copy.path, "--json").out, parse_constant=pytest.fail)
    assert [entry["loss"] for entry in shown["warmup"]] == [None] * 10
    assert "warmup loss not finite -> not finite" in gradsift("inspect", tiny_copy.path).out


def test_verify_says_whole_or_names_the_file(tiny_copy: Store) -> None:
    whole = gradsift("verify", tiny_copy.path)
    assert (whole.code, whole.out) == (0, f"{tiny_copy.path} is whole: 40 rows at 2 checkpoints.\n")
    path = tiny_copy.shard_path("adam", 1, 3)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    damaged = gradsift("verify", tiny_copy.path)
    assert damaged.code == 1
    assert damaged.out.startswith(f"{path} is damaged")
    as_json = gradsift("verify", tiny_copy.path, "--json")
    assert as_json.code == 1
    assert json.loads(as_json.out)["whole"] is False
    assert len(json.loads(as_json.out)["problems"]) == 1


def test_doctor_says_what_is_here_and_what_is_wrong(tiny_copy: Store, tmp_path: Path) -> None:
    home = {"XDG_DATA_HOME": str(tmp_path / "data")}
    well = gradsift("doctor", tiny_copy.path, "--json", **home)
    assert well.code == 0, well.err
    result = {entry["name"]: entry["found"] for entry in json.loads(well.out)}
    assert result["torch"] == torch.__version__
    assert result["workspace"].startswith(str(tmp_path / "data" / "gradsift"))
    assert result["store"] == "40 usable rows, 2 checkpoints"
    path = tiny_copy.path / "manifest.json"
    manifest = json.loads(path.read_text())
    versions = {**tiny_copy.manifest.versions, "torch": "1.0"}
    Store(tiny_copy.path, tiny_copy.manifest.model_copy(update={"versions": versions})).save_manifest()
    assert json.loads(path.read_text()) != manifest
    tiny_copy.shard_path("adam", 1, 3).unlink()
    ill = gradsift("doctor", tiny_copy.path, **home)
    assert ill.code == 1
    assert "torch 1.0 there" in ill.out
    assert "1 file is missing" in ill.out


def test_score_writes_the_table(tiny_copy: Store, tiny_targets: Path, tmp_path: Path) -> None:
    methods = [word for name in ("less", "bm25", "rds", "random", "less") for word in ("--method", name)]
    out = tmp_path / "below" / "scores.parquet"
    done = gradsift("score", tiny_copy.path, "--targets", tiny_targets, *methods, "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: 40 rows by less (best 0.")
    table = pd.read_parquet(out)
    assert list(table.columns) == ["row", "id", "source", "method", "score", "rank", "best_subtask"]
    assert table.groupby("method").size().to_dict() == {"less": 40, "bm25": 40, "rds": 40, "random": 40}
    as_json = gradsift("score", tiny_copy.path, "--targets", tiny_targets, *methods, "--out", out, "--json")
    assert json.loads(as_json.out)["rows"] == 40


def test_a_second_score_needs_no_model(
    tiny_pool: Path, tiny_model: Path, flags: list, tiny_targets: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    flags[flags.index("--model") + 1] = model
    assert gradsift("build", tiny_pool, *flags, "--out", tmp_path / "store").code == 0
    score = ["score", tmp_path / "store", "--targets", tiny_targets, "--method", "less", "--method", "rds"]
    assert gradsift(*score, "--out", tmp_path / "1.parquet").code == 0
    shutil.rmtree(model)
    again = gradsift(*score, "--out", tmp_path / "2.parquet")
    assert again.code == 0, again.err
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()


def test_flags_of_scoring_change_the_scores(tiny_copy: Store, tiny_targets: Path, tmp_path: Path) -> None:
    def scores(*flags: str) -> list[float]:
        done = gradsift("score", tiny_copy.path, "--targets", tiny_targets, *flags, "--out", tmp_path / "s.parquet")
        assert done.code == 0, done.err
        return pd.read_parquet(tmp_path / "s.parquet")["score"].tolist()

    others = ["--similarity=dot", "--target-pooling=mean-of-cosines", "--aggregate=mean", "--gradient=sgd"]
    assert (
        len({tuple(scores(*flags)) for flags in ([], *([flag] for flag in others), ["--aggregate=round-robin"])}) == 6
    )


def test_select_writes_a_folder(tiny_copy: Store, tiny_targets: Path, tmp_path: Path) -> None:
    ask = ["select", tiny_copy.path, "--targets", tiny_targets, "--method", "less"]
    done = gradsift(*ask, "--top", "5%", "--out", tmp_path / "picks")
    assert done.code == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'picks' / 'train.jsonl'}: 2 rows of 40 scored and 2 excluded, ")
    assert len((tmp_path / "picks" / "train.jsonl").read_text().splitlines()) == 2
    as_json = gradsift(*ask, "--top", "3", "--format", "parquet", "--out", tmp_path / "picks", "--json")
    manifest = json.loads(as_json.out)
    assert manifest["data"]["file"] == "train.parquet"
    assert manifest == json.loads((tmp_path / "picks" / "manifest.json").read_text())
    assert not (tmp_path / "picks" / "train.jsonl").exists()


def test_two_builds_at_once(tiny_pool: Path, flags: list, tmp_path: Path, tiny_store: Store) -> None:
    flags[flags.index("--epochs") + 1] = 12
    first = start("build", tiny_pool, *flags, "--out", tmp_path)
    status = tmp_path / "job" / "status.json"
    while not (status.exists() and json.loads(status.read_text())["stage"] == "warmup"):
        assert first.code is None, first.err
    pid = json.loads(status.read_text())["pid"]
    second = gradsift("build", tiny_pool, *flags, "--out", tmp_path)
    assert second.code == 1
    assert second.error == f"Another process is writing into {tmp_path}; wait for it, or stop it first."
    restarted = gradsift("build", tiny_pool, *flags, "--out", tmp_path, "--restart")
    assert (restarted.code, restarted.error) == (1, second.error)
    now = json.loads(status.read_text())
    assert first.code is None
    assert (now["pid"], now["state"]) == (pid, "running") == (first.pid, "running")
    assert first.wait().code == 0, first.err
    assert gradsift("verify", tmp_path).code == 0


def test_an_interrupt_is_a_sentence_and_keeps_what_is_there(tiny_pool: Path, flags: list, tmp_path: Path) -> None:
    flags[flags.index("--epochs") + 1] = 60
    run = start("build", tiny_pool, *flags, "--out", tmp_path)
    while not (tmp_path / "checkpoints" / "epoch-2").exists():
        assert run.code is None, run.err
    os.kill(run.pid, 2)
    assert run.wait().code == 1
    assert run.error == (
        "Stopped as asked. Finished epochs, shards and evaluation runs are kept; run the same command again to do the "
        "rest."
    )
    assert run.out == ""
    assert (tmp_path / "checkpoints" / "epoch-2").is_dir()


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints, after steps 4 and 8, of a run of transformers' Trainer with PEFT, as people have them."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    folder = tmp_path_factory.mktemp("trained")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.1, task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), lora)
    ids = [tokenizer(f"the cat sat on mat {n}")["input_ids"][:6] for n in range(16)]
    Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            num_train_epochs=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="epoch",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=[{"input_ids": torch.tensor(x), "labels": torch.tensor(x)} for x in ids],
    ).train()
    return [folder / "checkpoint-4", folder / "checkpoint-8"]


def _with_checkpoints(flags: list[object], checkpoints: list[Path]) -> list[object]:
    return [*flags, *(word for checkpoint in checkpoints for word in ("--checkpoints", checkpoint))]


def test_your_own_checkpoints(
    trained: list[Path], tiny_pool: Path, flags: list, tiny_targets: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    built = gradsift("build", tiny_pool, *_with_checkpoints(flags, trained), "--out", store)
    assert built.code == 0, built.err
    assert gradsift("verify", store).code == 0
    log = json.loads((trained[1] / "trainer_state.json").read_text())["log_history"]
    rates = [entry["learning_rate"] for entry in log if "learning_rate" in entry]
    assert len(rates) == 8
    manifest = Store.open(store).manifest
    assert [c.step for c in manifest.checkpoints] == [4, 8]
    assert [c.mean_lr for c in manifest.checkpoints] == pytest.approx([sum(rates[:4]) / 4, sum(rates[4:]) / 4])
    assert [c.weight for c in manifest.checkpoints] == pytest.approx(
        [sum(r) / sum(rates) for r in (rates[:4], rates[4:])]
    )
    assert not (store / "warmup").exists()
    assert Store.open(store).loss_curve().empty
    before = contents(store)
    assert gradsift("build", tiny_pool, *_with_checkpoints(flags, trained), "--out", store).code == 0
    assert contents(store) == before
    done = gradsift("score", store, "--targets", tiny_targets, "--out", tmp_path / "s.parquet")
    assert done.code == 0, done.err
    assert pd.read_parquet(tmp_path / "s.parquet")["score"].nunique() > 30


def test_a_store_lends_its_checkpoints_to_another(
    tiny_store: Store, tiny_pool: Path, flags: list, tmp_path: Path
) -> None:
    lent = [tiny_store.path / "checkpoints" / name for name in tiny_store.epochs]
    assert gradsift("build", tiny_pool, *_with_checkpoints(flags, lent), "--out", tmp_path).code == 0
    for name in ("features/epoch-1/adam-00000.safetensors", "features/epoch-2/sgd-00004.safetensors"):
        assert (tmp_path / name).read_bytes() == (tiny_store.path / name).read_bytes()
    assert Store.open(tmp_path).weights.tolist() == tiny_store.weights.tolist()


def test_checkpoints_without_moments(trained: list[Path], tiny_pool: Path, flags: list, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(trained[0], tmp_path / "bare", ignore=shutil.ignore_patterns("optimizer.pt")))
    refused = gradsift("build", tiny_pool, *_with_checkpoints(flags, [bare]), "--out", tmp_path / "store")
    assert refused.code == 1
    assert refused.error.startswith(f"{bare} holds no optimizer.pt or optimizer.bin, so there are no Adam moments")
    assert refused.error.endswith("or build with --gradient sgd.")
    only = [*flags[: flags.index("--gradient")], "--gradient", "sgd"]
    built = gradsift("build", tiny_pool, *_with_checkpoints(only, [bare]), "--out", tmp_path / "sgd")
    assert built.code == 0, built.err
    assert gradsift("verify", tmp_path / "sgd").code == 0


def test_folders_that_are_not_checkpoints(tiny_pool: Path, flags: list, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere"):
        refused = gradsift("build", tiny_pool, *_with_checkpoints(flags, [folder]), "--out", tmp_path / "store")
        assert refused.code == 1
        assert not (tmp_path / "store" / "manifest.json").exists()
        assert (
            refused.error
            == f"{folder} is not a PEFT checkpoint: adapter_model.safetensors is missing. "
            + "Give the folder that the Trainer or PEFT saved."
        )
