"""Random projections Π (Eq. 2) from LoRA space (P coordinates) to d, determined by (kind, seed, checkpoint, d).

`SparseProjector` is the default: a count-sketch that adds in a fixed order. `RademacherProjector` is the paper's
dense ±1 matrix, for reference and small runs. Both map each parameter's flat gradient into the same d-vector, so an
example's P-vector is never assembled. All randomness comes from the raw stream of Philox, a counter-based generator
whose bits NumPy guarantees never to change; nothing depends on batch, device, workers or library versions.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch

from gradsift.runtime.hashing import hash_json, raw_hash

Shapes = Mapping[str, tuple[int, ...]]


def projector_id(kind: str, seed: int, checkpoint: int, dim: int, shapes: Shapes) -> str:
    """The id of a projection: equal ids mean equal matrices, on any machine."""
    parts = ["v1", kind, seed, checkpoint, dim, sorted((name, list(shape)) for name, shape in shapes.items())]
    return hash_json(parts)[:16]


def make_projector(
    kind: str, seed: int, checkpoint: int, dim: int, shapes: Shapes, device: torch.device
) -> "Projector":
    """The projector of checkpoint number `checkpoint` (from 1) for parameters with these names and shapes."""
    return {"sparse": SparseProjector, "rademacher": RademacherProjector}[kind](seed, checkpoint, dim, shapes, device)


class Projector(ABC):
    """A linear map from named parameters to d-vectors with E⟨Πx, Πy⟩ = ⟨x, y⟩."""

    kind: str

    def __init__(self, seed: int, checkpoint: int, dim: int, shapes: Shapes, device: torch.device) -> None:
        self.seed, self.checkpoint, self.dim, self.shapes, self.device = seed, checkpoint, dim, dict(shapes), device

    @property
    def id(self) -> str:
        return projector_id(self.kind, self.seed, self.checkpoint, self.dim, self.shapes)

    @abstractmethod
    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        """Add Π restricted to parameter `name` times each row of `gradients` (B, n) fp32 to `out` (B, d) fp32."""

    def _stream(self, purpose: str, name: str) -> np.random.Philox:
        words = json.dumps(["v1", self.kind, purpose, self.seed, self.checkpoint, self.dim, name, self.shapes[name]])
        return np.random.Philox(key=np.frombuffer(raw_hash(words.encode())[:16], dtype="<u8"))

    def _size(self, name: str) -> int:
        return int(np.prod(self.shapes[name]))


class SparseProjector(Projector):
    """Count-sketch: a random sign per coordinate, blocks of d, a random rotation per block, blocks added in order.

    O(P) per example. Coordinates of one block never meet; two of different blocks meet with probability 1/d.
    """

    kind = "sparse"

    def __init__(self, seed: int, checkpoint: int, dim: int, shapes: Shapes, device: torch.device) -> None:
        super().__init__(seed, checkpoint, dim, shapes, device)
        self._signs: dict[str, torch.Tensor] = {}
        self._shifts: dict[str, list[int]] = {}
        for name in self.shapes:
            size = self._size(name)
            self._signs[name] = torch.from_numpy(_signs(self._stream("sign", name), size)).to(device)
            blocks = -(-size // dim)
            self._shifts[name] = (self._stream("rotation", name).random_raw(blocks) % np.uint64(dim)).tolist()

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        signs = self._signs[name]
        for start, shift in zip(range(0, len(signs), self.dim), self._shifts[name], strict=True):
            stop = min(start + self.dim, len(signs))
            wrap = min(stop, start + self.dim - shift)  # from here on the rotation continues at 0
            # Signs are applied while adding: one pass over the gradients, and no signed copy of them.
            out[:, shift : shift + wrap - start].addcmul_(gradients[:, start:wrap], signs[start:wrap])
            out[:, : stop - wrap].addcmul_(gradients[:, wrap:stop], signs[wrap:stop])


class RademacherProjector(Projector):
    """The paper's dense matrix: every entry is ±1/√d, generated in blocks as needed. O(P·d) per batch."""

    kind = "rademacher"
    block = 1024  # coordinates per block: affects memory, not the matrix

    def add(self, name: str, gradients: torch.Tensor, out: torch.Tensor) -> None:
        size = self._size(name)
        for start in range(0, size, self.block):
            columns = self._columns(name, start, min(start + self.block, size))  # (b, d)
            out.addmm_(gradients[:, start : start + len(columns)], columns, alpha=self.dim**-0.5)

    def _columns(self, name: str, start: int, stop: int) -> torch.Tensor:
        """(stop - start, d) signs of a parameter's coordinates, each from its own place in the parameter's stream."""
        ticks = -(-self.dim // 256)  # Philox yields 256 bits per tick; a coordinate gets a whole number of ticks
        stream = self._stream("entry", name)
        stream.advance(start * ticks)
        signs = _signs(stream, (stop - start) * ticks * 256).reshape(stop - start, -1)[:, : self.dim]
        return torch.from_numpy(np.ascontiguousarray(signs)).to(self.device)


def _signs(stream: np.random.Philox, count: int) -> np.ndarray:
    """`count` values ±1 in fp32, one per raw bit, the lowest bit of the lowest byte first."""
    words = stream.random_raw(-(-count // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8), bitorder="little", count=count)
    return bits.astype(np.float32) * 2 - 1
