"""Paired timing: implementations take turns within one process, and ratios are taken turn by turn."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from saffron.models.device import DeviceMemoryError

CPU = torch.device("cpu")
#: What a second of each clock is called.
SECONDS = {"cpu": "CPU second", "wall": "second"}


def clock(device: torch.device) -> str:
    """The clock that counts on a device: CPU time of the process, which a busy machine disturbs less, or wall time."""
    return "cpu" if device.type == "cpu" else "wall"


@dataclass
class Timing:
    """Seconds of each turn by both clocks.

    Attributes:
        device: where it ran.
        cpu: CPU time of the process.
        wall: wall time; on a GPU from an idle device to an idle device.
        peak_bytes: of a GPU, the most that was allocated, the weights included; None on a CPU.
        out_of_memory: whether a turn did not fit, after which there was none.
    """

    device: torch.device
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    peak_bytes: int | None = None
    out_of_memory: bool = False

    @property
    def seconds(self) -> list[float]:
        """Of the clock that counts on the device."""
        return self.cpu if clock(self.device) == "cpu" else self.wall

    def as_dict(self) -> dict[str, list[float]]:
        """Both clocks, for JSON."""
        return {"cpu": self.cpu, "wall": self.wall}

    def turn(self, function: Callable[[], Any], *, counts: bool) -> None:
        """Run once; a turn that does not count leaves no seconds."""
        gpu = self.device.type == "cuda"
        if gpu:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            function()
            if gpu:
                torch.cuda.synchronize(self.device)
        except (torch.OutOfMemoryError, DeviceMemoryError):
            self.out_of_memory = True
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if gpu:
            self.peak_bytes = max(self.peak_bytes or 0, torch.cuda.max_memory_allocated(self.device))
        if self.out_of_memory:
            free()
        elif counts:
            self.cpu.append(cpu)
            self.wall.append(wall)


def paired(
    functions: dict[str, Callable[[], Any]], turns: int, *, device: torch.device = CPU, warm_up: bool = True
) -> dict[str, Timing]:
    """Time each function ``turns`` times, one after the other in every turn (after one turn that does not count).

    A function that runs out of memory is left out from then on; its seconds are those of the turns before.
    """
    timings = {name: Timing(device) for name in functions}
    for turn in range(turns + warm_up):
        for name, function in functions.items():
            if not timings[name].out_of_memory:
                timings[name].turn(function, counts=turn >= warm_up)
    return timings


def free() -> None:
    """Give a failed attempt's memory back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def memory(timings: dict[str, Timing]) -> dict[str, Any]:
    """What a record says of memory: a GPU's peaks by name, and who ran out of it. Empty if there is nothing to say."""
    peaks = {name: timing.peak_bytes for name, timing in timings.items() if timing.peak_bytes is not None}
    failed = [name for name, timing in timings.items() if timing.out_of_memory]
    return ({"peak_bytes": peaks} if peaks else {}) | ({"out_of_memory": failed} if failed else {})


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """Median over the turns of ours / theirs; None where there was no turn of both."""
    pairs = list(zip(ours, theirs, strict=False))  # one that ran out of memory has fewer
    return statistics.median(a / b for a, b in pairs) if pairs else None


def median(seconds: Sequence[float]) -> float | None:
    """None where there was no turn."""
    return statistics.median(seconds) if seconds else None


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """Slope of log value against log size, by least squares; None of fewer than two points."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) if len(sizes) > 1 else None
