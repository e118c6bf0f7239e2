"""Feature shards: a range of rows as quantized unit vectors, in one safetensors file that carries its own hash.

A shard holds `q` (n, d) int8 or fp16, or (n, d/8) uint8 sign bits; `scale` (n,) fp32, so that the decoded row times its
scale has length one; `norm` (n,) fp32, the length before quantization. A row with a gradient that is not finite has
scale 0 and norm NaN. The header's single entry is JSON: what made the shard, which rows, and the sha256 of the payload.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gradsift.datastore.verified import Checked, traits_of
from gradsift.runtime import atomic
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.hashing import hash_parts

HEADER = "gradsift"
BLOCK_BYTES = 1 << 22  # of decoded fp32: what one step of a scoring pass expands, small enough for the cache


class ShardError(GradsiftError):
    """A shard that is missing or damaged, or was not made as the store's manifest says."""


@dataclass(frozen=True)
class Shard:
    """An opened shard, memory-mapped. start, stop: positions among the usable rows."""

    path: Path
    start: int
    stop: int
    dtype: str
    q: torch.Tensor
    scale: torch.Tensor
    norm: torch.Tensor
    traits: list[int]  # of the file when it was opened, see verified.py

    def pieces(self, size: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (offset, rows of q), `size` rows at a time, all read into one buffer, which the next rows overwrite.

        Reading costs less than the page faults of a map, the disk reads ahead, and the buffer stays in the cache.

        Raises:
            ShardError: the file has changed since it was opened.
        """
        buffer = torch.empty_like(self.q[:size])
        with open(self.path, "rb", buffering=0) as file:
            header = int.from_bytes(file.read(8), "little")
            if traits_of(os.fstat(file.fileno())) != self.traits:
                raise ShardError(f"{self.path} has changed since it was opened; run the same command again.")
            file.seek(8 + header + json.loads(file.read(header))["q"]["data_offsets"][0])
            for offset in range(0, len(self.q), size):
                rows = buffer[: len(self.q) - offset]
                left = rows.numpy().data.cast("B")
                while left and (count := file.readinto(left)):
                    left = left[count:]
                if left:
                    raise ShardError(f"{self.path} was truncated while it was read; run the same command again.")
                yield offset, rows

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (offset, unit rows (b, d) fp32) in blocks that fit the cache."""
        dim = self.q.shape[1] * (8 if self.dtype == "bit" else 1)
        size = max(1, BLOCK_BYTES // (4 * dim))
        for offset in range(0, len(self.q), size):
            rows = decode(self.q[offset : offset + size], self.dtype)
            yield offset, rows.mul_(self.scale[offset : offset + size, None])

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """(k, d) fp32 unit rows at these positions in the shard."""
        return decode(self.q[rows], self.dtype).mul_(self.scale[rows, None])


def encode(x: torch.Tensor, dtype: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantize rows of x (n, d) fp32 to (q, scale, norm); see the module's text for their meaning."""
    norm = x.norm(dim=1)
    usable = norm.isfinite() & (norm > 0)
    norm = torch.where(norm.isfinite(), norm, torch.nan)
    x = torch.where(usable[:, None], x, 0)
    peak = x.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    if dtype == "int8":
        q = (x / peak * 127).round_().to(torch.int8)
    elif dtype == "fp16":
        q = (x / peak).to(torch.float16)
    else:
        q = torch.from_numpy(np.packbits((x >= 0).cpu().numpy(), axis=1, bitorder="little"))
    length = decode(q, dtype).norm(dim=1)
    return q, torch.where(usable.to(length.device), 1 / length.clamp_min(1e-12), 0), norm


def decode(q: torch.Tensor, dtype: str) -> torch.Tensor:
    """Rows as fp32, up to their scale."""
    if dtype != "bit":
        return q.float()
    bits = np.unpackbits(q.numpy(), axis=1, bitorder="little")
    return torch.from_numpy(bits).float().mul_(2).sub_(1)


def write_shard(path: Path, params: str, start: int, dtype: str, x: torch.Tensor) -> None:
    """Quantize x (n, d) and write it as the shard of usable rows start..start+n.

    params: hash of everything that determines the numbers (`Store.params`).
    """
    tensors = dict(zip(("q", "scale", "norm"), encode(x, dtype), strict=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, tensors, {"params": params, "start": start, "stop": start + len(x), "dtype": dtype})


def read_shard(path: Path, params: str, checked: Checked | None = None) -> Shard:
    """Open a shard and check it. checked: files that need not be hashed again.

    Raises:
        ShardError: it is missing, damaged, or made with other parameters.
    """
    traits = traits_of(path.stat()) if path.is_file() else []
    tensors, about = read_tensors(path, checked)
    if about["params"] != params:
        raise ShardError(f"{path} was made with other parameters than the store's; build with --restart to replace it.")
    q, scale, norm = (tensors[name] for name in ("q", "scale", "norm"))
    return Shard(path, about["start"], about["stop"], about["dtype"], q, scale, norm, traits)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Write tensors with a header that carries `about` and the hash of both."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    about = {**about, "sha256": _digest(about, tensors)}
    atomic.write_bytes(path, save(tensors, {HEADER: json.dumps(about, sort_keys=True)}))


def read_tensors(path: Path, checked: Checked | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Memory-map the tensors of a file of ours and check its hash; returns (tensors, header).

    checked: a file that it lists in its present state is not hashed again; a file that is hashed is added.

    Raises:
        ShardError: missing or damaged.
    """
    try:
        known, stat = checked is not None and path in checked, path.stat()
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()[HEADER])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        expected = about.pop("sha256")
    except FileNotFoundError as error:
        raise ShardError(f"{path} is missing; run the same build again to make it.") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ShardError(f"{path} is damaged ({error}); delete it and run the same command again.") from error
    if known:
        return tensors, about
    if _digest(about, tensors) != expected:
        raise ShardError(
            f"{path} is damaged: its content does not match its hash; delete it and run the same command again."
        )
    if checked is not None:
        checked.add(path, stat)
    return tensors, about


def _digest(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    parts: list[bytes | memoryview] = [json.dumps(about, sort_keys=True).encode()]
    for name, tensor in sorted(tensors.items()):
        parts += [f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode(), tensor.numpy().data]
    return hash_parts(parts)
