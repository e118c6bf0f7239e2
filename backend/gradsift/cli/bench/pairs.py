"""Two programs timed side by side, in turn, so that whatever else the machine does hits both; only ratios are told."""

import time
from collections.abc import Callable
from dataclasses import dataclass

Timed = Callable[[], float]


@dataclass(frozen=True)
class Pairs:
    """Seconds of paired runs: ours[i] and peer[i] were measured one right after the other."""

    ours: list[float]
    peer: list[float]

    def ratios(self) -> list[float]:
        """Our time over the peer's, pair by pair."""
        return [one / other for one, other in zip(self.ours, self.peer, strict=True)]

    def speedups(self) -> list[float]:
        """The peer's time over ours, pair by pair."""
        return [1 / ratio for ratio in self.ratios()]


def in_turn(ours: Timed, peer: Timed, runs: int, done: Callable[[], None]) -> Pairs:
    """Run both `runs` times; who goes first changes from pair to pair. `done()` is called after each pair."""
    pairs = Pairs([], [])
    for number in range(runs):
        if number % 2:
            pairs.peer.append(peer())
        pairs.ours.append(ours())
        if not number % 2:
            pairs.peer.append(peer())
        done()
    return pairs


def timed(work: Callable[[], object]) -> Timed:
    """`work` as a function that returns the seconds it took; work on a device must be waited for inside it."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run
