"""Paired timing: implementations take turns within one process, and ratios are taken turn by turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass
class Timing:
    """Seconds of each turn: CPU time of the process, which a busy machine disturbs less, and wall time."""

    cpu: list[float]
    wall: list[float]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def paired(functions: dict[str, Callable[[], Any]], turns: int, *, warm_up: bool = True) -> dict[str, Timing]:
    """Time each function ``turns`` times, one after the other in every turn (after one turn that does not count)."""
    timings = {name: Timing([], []) for name in functions}
    for turn in range(turns + warm_up):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            if turn >= warm_up:
                timings[name].cpu.append(time.process_time() - cpu)
                timings[name].wall.append(time.perf_counter() - wall)
    return timings


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the turns of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log value against log size, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])
