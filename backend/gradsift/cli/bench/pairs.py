"""Two programs timed in turn, so that other load on the machine affects both; only their ratio is reported."""

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
        return [ours / peer for ours, peer in zip(self.ours, self.peer, strict=True)]

    def speedups(self) -> list[float]:
        """The peer's time over ours, pair by pair."""
        return [1 / ratio for ratio in self.ratios()]


def in_turn(ours: Timed, peer: Timed, runs: int, done: Callable[[], None]) -> Pairs:
    """Run both `runs` times, alternating which goes first. `done()` is called after each pair."""
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
    """`work` as a function that returns the seconds it took; `work` itself must wait for a device to finish."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run
