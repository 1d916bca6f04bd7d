"""How fast this machine's CPU computes at a model's shape: measured in seconds, before a run, for the plan.

A layer's speed depends on its width, on the dtype and on what the other cores do, and a small model spends more time between
products than in them. So two layers of the model's shape are run, on every core at once, and what counts is each thread's own
CPU time: other processes change it little.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel

from saffron.engine.compute import ModelShape

#: Layers that are run, sequences and tokens that they read at once, and repetitions, of which the fastest counts.
_LAYERS, _ROWS, _TOKENS, _REPEATS = 2, 8, 32, 3


@dataclass(frozen=True)
class Pace:
    """One core's pace at one model's shape.

    Args:
        reading: FLOP per second of a forward pass over many tokens.
        training: the same of a forward and backward pass, which is counted as three forward passes.
        step: seconds of a forward pass of a single token through all layers: what a step takes however little it reads.
    """

    reading: float
    training: float
    step: float


@dataclass(frozen=True)
class Speed:
    """What was measured: ``paces`` by role of the model; ``start``, CPU seconds of a process that has loaded its libraries."""

    dtype: str
    cores: int
    start: float
    paces: dict[str, Pace]

    def as_record(self) -> dict[str, Any]:
        """For JSON, three digits of each number."""
        return {
            "dtype": self.dtype,
            "cores": self.cores,
            "start": float(f"{self.start:.3g}"),
            "paces": {
                role: {name: float(f"{value:.3g}") for name, value in asdict(pace).items()} for role, pace in self.paces.items()
            },
        }


def measure(shapes: dict[str, ModelShape], dtype: str) -> Speed:
    """Measure, with every core busy, at each distinct shape of a layer; torch's number of threads is left as it was.

    Args:
        shapes: of the models, by role.
        dtype: float32, bfloat16 or float64; training computes its products in it.
    """
    start, cores, before = time.process_time(), len(os.sched_getaffinity(0)), torch.get_num_threads()
    torch.set_num_threads(1)
    known: dict[ModelShape, tuple[float, float, float]] = {}
    try:
        for shape in map(_layer, shapes.values()):
            if shape not in known:
                known[shape] = _measured(shape, getattr(torch, dtype), cores)
    finally:
        torch.set_num_threads(before)
    paces = {}
    for role, shape in shapes.items():
        reading, training, step = known[_layer(shape)]
        paces[role] = Pace(reading, training, step * shape.layers)
    return Speed(dtype, cores, start, paces)


def _layer(shape: ModelShape) -> ModelShape:
    """What the time of one layer depends on."""
    return ModelShape(**{**asdict(shape), "layers": _LAYERS, "vocab_size": 0})


def _measured(shape: ModelShape, dtype: torch.dtype, cores: int) -> tuple[float, float, float]:
    """FLOP per second of reading and of training, and seconds of a layer that reads one token; means over the cores."""
    config = LlamaConfig(
        vocab_size=1,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=_LAYERS,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng():
        models = [LlamaModel(config) for _ in range(cores)]
    many = torch.ones(_ROWS, _TOKENS, shape.hidden_size)
    flops = _ROWS * shape.chain(0, _TOKENS)
    with ThreadPoolExecutor(cores) as pool:
        # Training keeps float32 weights and computes products in the run's dtype, as the models stage does.
        training = list(pool.map(lambda model: _fastest(lambda: _train(model, many, dtype)), models))
        for model in models:
            torch.nn.Module.to(model, dtype)  # transformers types its own for whole models alone
        reading = list(pool.map(lambda model: _fastest(lambda: _read(model, many.to(dtype))), models))
        steps = list(pool.map(lambda model: _fastest(lambda: _read(model, many[:1, :1].to(dtype))), models))
    return flops * cores / sum(reading), 3 * flops * cores / sum(training), sum(steps) / cores / _LAYERS


def _fastest(work: Callable[[], None]) -> float:
    """CPU seconds of this thread for the fastest of several repetitions."""
    times = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return max(min(times), 1e-9)


@torch.inference_mode()
def _read(model: LlamaModel, inputs: torch.Tensor) -> None:
    model(inputs_embeds=inputs, use_cache=False)


def _train(model: LlamaModel, inputs: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        model(inputs_embeds=inputs, use_cache=False).last_hidden_state.float().square().mean().backward()
