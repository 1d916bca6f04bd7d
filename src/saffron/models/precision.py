"""bfloat16 where it is faster: measured once per run, as only a CPU with the instructions gains from it.

Without them a CPU computes in bfloat16 several times slower than in float32, and with some of them (AVX-512 without AMX) it still
may. So ``runtime.dtype: auto`` asks for the instructions, then times a small decoder's work in both, and the choice is stored and
kept for the whole run: results are the same bytes only in one dtype.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch

from saffron import records
from saffron.config import Config, Runtime
from saffron.layout import Layout
from saffron.models.loading import device_of

Loss = TypeVar("Loss", bound=Callable[..., Any])
Dtype = Literal["float32", "bfloat16"]

#: How many times faster bfloat16 has to be: it also costs precision.
WORTHWHILE = 1.2
#: Width and rows of the matrices that are multiplied, as of a small policy that reads a batch; and repetitions, of which the
#: fastest counts, as other processes only ever slow one down.
_WIDTH, _ROWS, _REPEATS = 1024, 64, 15


def resolved(config: Config, layout: Layout) -> Config:
    """The config with ``runtime.dtype: auto`` replaced by the run's choice, which is made, and stored, if there is none yet.

    Raises:
        RecordError: if the stored choice cannot be read.
    """
    if config.runtime.dtype != "auto":
        return config
    if layout.dtype_record.exists():
        record = records.read_json(layout.dtype_record, ("dtype",))
    else:
        record = choose(config.runtime)
        records.write_json(layout.dtype_record, record)
    return config.model_copy(update={"runtime": config.runtime.model_copy(update={"dtype": record["dtype"]})})


def choose(runtime: Runtime) -> dict[str, Any]:
    """Measure and choose.

    Returns:
        ``dtype``; whether the device has ``instructions`` for bfloat16; ``seconds`` of the same work in both, None without the
        instructions, where nothing is measured.
    """
    device = device_of(runtime)
    if not has_bfloat16(device):
        return {"dtype": "float32", "device": device.type, "instructions": False, "seconds": None}
    seconds = {name: measured(getattr(torch, name), device, runtime.torch_threads) for name in ("float32", "bfloat16")}
    faster = seconds["float32"] >= WORTHWHILE * seconds["bfloat16"]
    return {
        "dtype": "bfloat16" if faster else "float32",
        "device": device.type,
        "instructions": True,
        "seconds": {name: float(f"{value:.3g}") for name, value in seconds.items()},
    }


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def measured(dtype: torch.dtype, device: torch.device, threads: int) -> float:
    """Seconds of a few matrix products, the fastest of several repetitions; torch's number of threads is left as it was.

    On a CPU it is this process's own time that counts, so that what else the machine does changes little.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    weight = torch.ones(_WIDTH, _WIDTH, dtype=dtype, device=device)
    rows = torch.ones(_ROWS, _WIDTH, dtype=dtype, device=device)
    try:
        times = []
        for _ in range(_REPEATS):
            start = clock()
            for _ in range(4):
                torch.nn.functional.linear(rows, weight)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(clock() - start)
    finally:
        torch.set_num_threads(before)
    return min(times)


def mixed(loss_of: Loss, dtype: str) -> Callable[..., Any]:
    """A loss whose matrix products are computed in bfloat16 if the run's dtype is that; weights and losses stay float32."""
    if dtype != "bfloat16":
        return loss_of

    @functools.wraps(loss_of)
    def computed(model: Any, *arguments: Any) -> Any:
        with torch.autocast(model.device.type, torch.bfloat16):
            return loss_of(model, *arguments)

    return computed
