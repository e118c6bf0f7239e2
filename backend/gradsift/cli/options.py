"""The arguments and options that several commands share, so that one name means one thing everywhere."""

from pathlib import Path
from typing import Annotated, get_args

import typer

from gradsift.config import Aggregate, BuildConfig, ColumnPart, GradientKind, Similarity, TargetPooling
from gradsift.scoring.methods import METHODS

PoolArgument = Annotated[list[str], typer.Argument(help="files, folders, patterns, saved datasets or hub ids")]
StoreArgument = Annotated[Path, typer.Argument(help="a store")]
FinishedStoreArgument = Annotated[Path, typer.Argument(help="a finished store")]

ModelOption = Annotated[str, typer.Option(help=BuildConfig.model_fields["model"].description)]
TemplateOption = Annotated[str, typer.Option(help="chat (the tokenizer's own), tulu, or a Jinja file")]
TemplateOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--template-option",
        help="a keyword for the template, NAME=VALUE, such as enable_thinking=false; may be repeated",
    ),
]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option(
        help="which column holds which part, such as user=question,assistant=answer; "
        f"the parts are {', '.join(get_args(ColumnPart))}"
    ),
]
TakeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="also read plain text rows (text), the chosen side of preferences (chosen), rows labelled true (label); "
        "may be repeated"
    ),
]
SourceColumnOption = Annotated[
    str | None, typer.Option(help="the column that names a row's source [default: dataset or source]")
]
LimitOption = Annotated[int | None, typer.Option(help="rows kept per source, a seeded sample [default: all]")]

TargetsOption = Annotated[
    Path, typer.Option("--targets", help="rows with `messages` (or any schema of the pool) and `subtask`")
]
TargetFeaturesOption = Annotated[
    Path | None, typer.Option(help="the targets' features, a file from gradsift features; no model is loaded")
]
MethodsOption = Annotated[list[str], typer.Option("--method", help=f"{', '.join(METHODS)}; may be repeated")]
SimilarityOption = Annotated[Similarity, typer.Option(help="how vectors are compared")]
PoolingOption = Annotated[
    TargetPooling, typer.Option(help="how a subtask's targets are combined: as in the paper or the released code")
]
AggregateOption = Annotated[Aggregate, typer.Option(help="how scores are combined over subtasks")]
GradientOption = Annotated[
    GradientKind | None, typer.Option(help="which stored update LESS compares [default: the store's first]")
]

ScoresOut = Annotated[Path, typer.Option(help="a Parquet file: row, id, source, method, score, rank, best_subtask")]
BenchFolderOption = Annotated[
    Path | None, typer.Option(help="folder for stores, which are kept for the next run [default: the cache]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON")]
