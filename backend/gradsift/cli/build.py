"""`gradsift plan`, `gradsift build` and `gradsift draft`: the cost of a build, the build, and a ranking without one."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from gradsift.cli.commands import print_json
from gradsift.cli.options import (
    ColumnsOption,
    JsonOption,
    LimitOption,
    ModelOption,
    PoolArgument,
    ScoresOut,
    SourceColumnOption,
    TakeOption,
    TargetsOption,
    TemplateOption,
    TemplateOptions,
)
from gradsift.config import (
    AdamForm,
    BuildConfig,
    Engine,
    EngineName,
    ModelDtype,
    ProjectionKind,
    StoreDtype,
    make_config,
    parse_columns,
    parse_options,
)
from gradsift.runtime.errors import UsageError

_MAX_LENGTH = BuildConfig.model_fields["max_length"]


def _default(name: str, extra: str = "") -> str:
    field = BuildConfig.model_fields[name]
    default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
    return f"{field.description or name.replace('_', ' ')}{extra} [default: {default}]"


_FLAGS: dict[str, Any] = {  # one per parameter, in the order of the help
    "model": ModelOption,
    "limit_per_source": LimitOption,
    "max_length": Annotated[int | None, typer.Option(help=_default("max_length"))],
    "template": Annotated[
        str | None, typer.Option(help="chat (the tokenizer's own), tulu, or a Jinja file [default: chat]")
    ],
    "template_option": TemplateOptions,
    "columns": ColumnsOption,
    "take": TakeOption,
    "source_column": SourceColumnOption,
    "warmup_fraction": Annotated[float | None, typer.Option(help=_default("warmup_fraction"))],
    "epochs": Annotated[int | None, typer.Option(help=_default("epochs"))],
    "batch_size": Annotated[int | None, typer.Option(help=_default("batch_size"))],
    "lr": Annotated[float | None, typer.Option(help=_default("lr"))],
    "lora_rank": Annotated[int | None, typer.Option(help=_default("lora_rank"))],
    "lora_alpha": Annotated[int | None, typer.Option(help="scale of LoRA [default: 4 x rank]")],
    "lora_targets": Annotated[str | None, typer.Option(help=_default("lora_targets"))],
    "lora_dropout": Annotated[float | None, typer.Option(help=_default("lora_dropout"))],
    "checkpoints": Annotated[
        list[str] | None,
        typer.Option(help="a PEFT checkpoint with optimizer.pt or .bin, used instead of a warmup; may be repeated"),
    ],
    "dim": Annotated[int | None, typer.Option(help=_default("dim"))],
    "projection": Annotated[ProjectionKind | None, typer.Option(help=_default("projection"))],
    "gradient": Annotated[
        list[str] | None, typer.Option(help=_default("gradients", ": adam, sgd, sign; may be repeated"))
    ],
    "adam": Annotated[AdamForm | None, typer.Option(help=_default("adam", " of Adam's update"))],
    "store_dtype": Annotated[StoreDtype | None, typer.Option(help=_default("store_dtype"))],
    "dtype": Annotated[ModelDtype | None, typer.Option(help=_default("dtype"))],
    "seed": Annotated[int | None, typer.Option(help=_default("seed"))],
}


def _with_flags(command: Callable) -> Callable:
    """`command` with a flag for every build parameter; the flags in use reach it as the dict `fields`."""

    @wraps(command)
    def run(**values: Any) -> None:
        command(fields=_fields({name: values.pop(name) for name in _FLAGS}), **values)

    own = [p for name, p in inspect.signature(command).parameters.items() if name != "fields"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    flags = [inspect.Parameter(name, keyword, annotation=kind, default=None) for name, kind in _FLAGS.items()]
    flags[0] = flags[0].replace(default=inspect.Parameter.empty)  # the model has no default
    run.__signature__ = inspect.Signature([*own[:1], *flags, *own[1:]])  # type: ignore[attr-defined]  # typer reads it
    return run


def _fields(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags as fields of `BuildConfig`, without those that were not used."""
    from gradsift.data.encode import read_template

    fields = {name: value for name, value in flags.items() if value is not None}
    if "template" in fields:
        fields["template"] = read_template(fields["template"])
    if "template_option" in fields:
        fields["template_options"] = parse_options(fields.pop("template_option"))
    if "columns" in fields:
        fields["columns"] = parse_columns(fields["columns"])
    if "lora_targets" in fields:
        fields["lora_targets"] = tuple(fields["lora_targets"].replace(",", " ").split())
    if "gradient" in fields:
        fields["gradients"] = tuple(dict.fromkeys(fields.pop("gradient")))
    if "checkpoints" in fields:
        fields["checkpoints"] = tuple(fields["checkpoints"])
    return fields


def _parameters(store: Path) -> dict[str, Any]:
    """The store's own parameters, which flags may change; a limit per source concerns the new rows only."""
    from gradsift.datastore.store import Store

    return Store.open(store).manifest.config.model_dump(exclude={"limit_per_source"})


@_with_flags
def plan(
    pool: PoolArgument,
    *,
    fields: dict[str, Any],
    workers: Annotated[int, typer.Option(min=1, help="devices that would share the feature extraction")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Estimate what a build with these flags would cost, before running it: rows, tokens, time, memory, disk."""
    config = make_config(**fields)
    from gradsift.builder.plan import describe, record
    from gradsift.builder.plan import plan as run
    from gradsift.runtime.progress import Progress

    progress = Progress()
    with progress.running():
        costs = run(pool, config, workers, progress)
    if as_json:
        print_json(record(costs))
    else:
        typer.echo(describe(costs))


@_with_flags
def build(
    pool: PoolArgument,
    *,
    fields: dict[str, Any],
    out: Annotated[Path, typer.Option(help="the store's folder")],
    append: Annotated[
        bool, typer.Option("--append", help="add POOL to the finished store OUT, with the store's parameters")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="discard what is in OUT and start over")] = False,
    engine: Annotated[EngineName, typer.Option(help="what extracts features: this process or Ray")] = "local",
    workers: Annotated[int | None, typer.Option(help="Ray workers [default: one per GPU, or all CPUs]")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="a running cluster, HOST:PORT or auto [default: one on this machine]")
    ] = None,
) -> None:
    """Build a gradient datastore: warmup, per-example gradients, projection. Run again to resume."""
    if append and restart:
        raise UsageError("--append keeps what --restart discards: give only one of them.")
    config = make_config(**{**(_parameters(out) if append else {}), **fields})
    place = Engine(engine, workers, ray_address)
    from gradsift.builder.build import build as run  # takes seconds, so wrong flags are reported first
    from gradsift.training import processes

    store = run(pool, out, config, engine=place, append=append, restart=restart)
    if processes.rank() == 0:
        typer.echo(store.path.resolve())


def draft(
    pool: PoolArgument,
    model: ModelOption,
    targets: TargetsOption,
    out: ScoresOut,
    store: Annotated[
        Path | None, typer.Option(help="keeps the vectors for other targets [default: OUT with -store as its ending]")
    ] = None,
    template: TemplateOption = "chat",
    template_option: TemplateOptions = None,
    columns: ColumnsOption = None,
    take: TakeOption = None,
    source_column: SourceColumnOption = None,
    limit_per_source: LimitOption = None,
    max_length: Annotated[int, typer.Option(help=_MAX_LENGTH.description)] = _MAX_LENGTH.default,
) -> None:
    """Rank a pool without a build: approximate LESS with the base model's output layer, without a warmup."""
    from gradsift.builder.build import begin
    from gradsift.data.encode import read_template
    from gradsift.data.targets import require_targets
    from gradsift.runtime import atomic
    from gradsift.runtime.progress import Progress
    from gradsift.selection.score import score

    config = make_config(
        model=model,
        template=read_template(template),
        template_options=parse_options(template_option or ()),
        columns=parse_columns(columns or ()),
        take=tuple(take or ()),
        source_column=source_column or "",
        limit_per_source=limit_per_source,
        max_length=max_length,
    )
    rows = require_targets(targets)
    place = store or out.with_name(f"{out.stem}-store")
    begun = begin(pool, place, config)
    progress = Progress()
    with progress.running():
        table = score(begun, rows, ["draft"], progress=progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        with atomic.open_for_write(out) as file:
            table.to_parquet(file, index=False)
    typer.echo(
        f"{out}: {len(table):,} rows ranked by the draft, which approximates LESS; the vectors are kept in {place}"
    )
