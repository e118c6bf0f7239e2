"""Where features are extracted: the stage of a build that can run in many places at once."""

from concurrent.futures import Future, ThreadPoolExecutor

from gradsift.extraction import Extraction
from gradsift.progress import Progress
from gradsift.store import Store


def extract_here(extraction: Extraction, todo: dict[int, list[int]], progress: Progress) -> None:
    """Make the shards `todo` (epoch -> indices) in this process, each written while the next is computed."""
    store = extraction.store
    with ThreadPoolExecutor(1) as writer:
        for epoch in sorted(todo):
            begin_stage(store, epoch, todo[epoch], progress)
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
    extraction.close()


def begin_stage(store: Store, epoch: int, indices: list[int], progress: Progress) -> None:
    """Begin the stage of an epoch of which the shards `indices` are missing."""
    total, ranges = store.manifest.usable, store.shard_ranges
    done = total - sum(ranges[i][1] - ranges[i][0] for i in indices)
    label = f"Gradient features, checkpoint {epoch + 1} of {len(store.epochs)}"
    progress.stage(f"features-{epoch + 1}", label, total, "rows", done=done)


def note_split(store: Store, epoch: int, index: int, progress: Progress) -> None:
    """Say that batches had to be halved."""
    progress.note(f"Memory ran out in shard {index} of {store.epochs[epoch]}: batches were halved.")
