"""Where features are extracted: the one stage of a build that can run in many places at once.

`local` is this process; `ray` is a cluster (`engine_ray.py`). The store is the same either way: neither the engine nor
the number of workers leaves a trace in it.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version

from gradsift.builder.extraction import Extraction
from gradsift.datastore.manifest import Manifest
from gradsift.datastore.store import Store
from gradsift.runtime.errors import GradsiftError
from gradsift.runtime.progress import Progress

LIBRARIES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "pyarrow", "gradsift")


class EngineError(GradsiftError):
    """A cluster that cannot be reached, or whose workers cannot do the work."""


def extract_here(extraction: Extraction, todo: dict[int, list[int]], progress: Progress) -> None:
    """Make the shards `todo` (epoch -> indices) in this process, each written while the next is computed."""
    store = extraction.store
    with ThreadPoolExecutor(1) as writer:
        for epoch in sorted(todo):
            begin_stage(store, epoch, rows_done(store, todo[epoch]), progress)
            writing: Future | None = None
            for index in todo[epoch]:
                features = extraction.extract(epoch, index, progress.advance)
                if features.splits:
                    note_split(store, epoch, index, progress)
                if writing is not None:
                    writing.result()
                writing = writer.submit(extraction.write, epoch, index, features)
            if writing is not None:
                writing.result()


def rows_done(store: Store, missing: list[int]) -> int:
    """Number of an epoch's rows whose shards are not missing."""
    ranges = store.shard_ranges
    return store.manifest.usable - sum(ranges[index][1] - ranges[index][0] for index in missing)


def begin_stage(store: Store, epoch: int, done: int, progress: Progress) -> None:
    """Begin the stage of an epoch of which `done` rows are already there."""
    label = f"Gradient features, checkpoint {epoch + 1} of {len(store.epochs)}"
    progress.stage(f"features-{epoch + 1}", label, store.manifest.usable, "rows", done=done)


def note_split(store: Store, epoch: int, index: int, progress: Progress) -> None:
    """Report that batches had to be halved."""
    progress.note(f"Memory ran out in shard {index} of {store.epochs[epoch]}: batches were halved.")


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that a store's numbers depend on."""
    return {name: version(name) for name in LIBRARIES}


def note_differences(manifest: Manifest, here: dict[str, str], who: str, progress: Progress) -> None:
    """Report where `here` (device, versions, and threads if they matter) differs from what a store was begun with."""
    original = {"device": manifest.device, "threads": str(manifest.threads), **manifest.versions}
    for name, value in original.items():
        if here.get(name, value) != value:
            progress.note(
                f"The store was begun with {name} {value}, {who} has {here[name]}: "
                "the numbers it adds may differ in the last digits."
            )
