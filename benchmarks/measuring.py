"""Measuring: medians over interleaved rounds, and a line of the table."""

import statistics
import time
from collections.abc import Callable, Sequence

__all__ = ["interleaved_us", "line"]

ROUNDS = 15
CALLS = 300


def interleaved_us(
    *works: Callable[[], object], rounds: int = ROUNDS, calls: int = CALLS
) -> list[float]:
    """Returns the median time of each work in microseconds.

    The works take turns, so that a busy moment of the machine hits all of them.
    """
    for work in works:
        work()
    samples: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, sample in zip(works, samples, strict=True):
            sample.append(_median_us(work, calls))
    return [statistics.median(sample) for sample in samples]


def line(
    what: str, measured: str, baseline: str, ratio: float | None, target: str
) -> str:
    """Returns a line of the table."""
    shown = "" if ratio is None else f"{ratio:.2f}"
    return f"{what:<44}{measured:>12}{baseline:>12}{shown:>8}  {target}"


def _median_us(work: Callable[[], object], calls: int) -> float:
    times: Sequence[int] = [_time_ns(work) for _ in range(calls)]
    return statistics.median(times) / 1000


def _time_ns(work: Callable[[], object]) -> int:
    start = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - start
