"""A row of the pool as a record of `pool.parquet`: what it says, its tokens, and whether it is usable."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from gradsift.data.encode import Encoder, RenderError
from gradsift.data.pool import Row
from gradsift.datastore.tokens import learned_runs
from gradsift.runtime.hashing import hash_bytes

_MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("reasoning", pa.string()),
        ("tool_calls", pa.list_(pa.struct([("name", pa.string()), ("arguments", pa.string()), ("id", pa.string())]))),
        ("name", pa.string()),
        ("call_id", pa.string()),
        ("learned", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("task", pa.string()),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("schema", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("tools", pa.string()),
        ("prefix", pa.string()),
        ("raw", pa.binary()),
        ("sha256", pa.string()),
        ("ids", pa.list_(pa.int32())),  # its tokens, cut to the maximum length; of an excluded row, null
        ("learned", pa.list_(pa.int32())),  # where runs of learned tokens start and stop, in turn
        ("n_prompt_tokens", pa.int32()),
        ("n_answer_tokens", pa.int32()),
        ("n_cut", pa.int32()),
        ("status", pa.string()),
        ("reason", pa.string()),
    ]
)


def make_table(rows: Sequence[Row], first: int, encoder: Encoder, max_length: int) -> pa.Table:
    """Consecutive rows, encoded, with the columns of `SCHEMA`. first: number of the first row."""
    records = [_record(number, row, encoder, max_length) for number, row in enumerate(rows, start=first)]
    return pa.Table.from_pylist(records, SCHEMA)


def _record(number: int, row: Row, encoder: Encoder, max_length: int) -> dict[str, Any]:
    tokens, reason = (None, row.reason) if row.reason else _tokens(row, encoder, max_length)
    return {
        "row": number,
        "id": row.id,
        "source": row.source,
        "task": row.task,
        "file": row.file,
        "line": row.line,
        "schema": row.schema,
        "messages": [message.record() for message in row.messages],
        "tools": row.tools or None,
        "prefix": row.prefix,
        "raw": row.raw,
        "sha256": hash_bytes(row.raw),
        **(tokens or {"n_prompt_tokens": 0, "n_answer_tokens": 0, "n_cut": 0}),
        "status": "excluded" if reason else "usable",
        "reason": reason,
    }


def _tokens(row: Row, encoder: Encoder, max_length: int) -> tuple[dict[str, Any] | None, str]:
    """The columns of a row's tokens, and why it cannot be used, or ""."""
    try:
        encoded = encoder.encode(row.conversation, max_length)
    except RenderError as error:
        return None, str(error)
    counts = {"n_prompt_tokens": encoded.n_prompt, "n_answer_tokens": encoded.n_answer, "n_cut": encoded.n_cut}
    if encoded.n_answer:
        return {"ids": encoded.ids, "learned": learned_runs(encoded.supervised), **counts}, ""
    if encoded.n_cut:
        return counts, f"no answer token is left: the answer begins after token {max_length}"
    return counts, "the answer has no token to learn"
