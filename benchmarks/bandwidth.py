"""The memory bandwidth of the device, and the floor that it sets for a step of a search.

A step reads every weight that multiplies at least once, and the keys and values that its new tokens attend to; however it
computes, it cannot take less time than reading them does.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.measure import paired
from benchmarks.shapes import Pair
from saffron.engine.compute import ModelShape

#: Bytes of the buffers that are read: many times what a cache holds.
BYTES = {"cpu": 1 << 27, "cuda": 1 << 32}


def measure(models: Pair, turns: int) -> dict[str, Any]:
    """Bytes per second that the device reads (a sum) and moves (a copy, which reads and writes), the best of some turns.

    ``weights`` and ``kv_per_token`` are the bytes of policy and MRM together that floors are made of: weights of all linear
    layers, the unembedding included, and one token's keys and values.
    """
    device = models.device
    source = torch.ones(BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    functions = {"read": lambda: source.sum(), "copied": lambda: target.copy_(source)}
    timings = paired(functions, max(3, turns), device=device)
    moved = {"read": source.nbytes, "copied": source.nbytes + target.nbytes}
    shapes = [ModelShape.from_config(model.config) for model in (models.policy, models.mrm)]
    size = models.policy.dtype.itemsize
    return {
        "bytes_per_second": {name: moved[name] / min(timing.wall) for name, timing in timings.items() if timing.wall},
        "weights": size * sum(shape.linear_weights for shape in shapes),
        "kv_per_token": sum(shape.kv_bytes_per_token(size) for shape in shapes),
    }


def floors(record: dict[str, Any], prompts: int, width: int, prompt_tokens: int, new_tokens: int) -> dict[str, float]:
    """Least seconds of a step, the mean over a search's steps, at the higher of the two bandwidths.

    Args:
        record: what :func:`measure` gave.
        prompts: in the batch.
        width: N.
        prompt_tokens: of each prompt.
        new_tokens: T, the steps; the first reads the prompt.

    Returns:
        ``tree``: each weight once, and the prompt and the newest token of each sequence once, the least a tree can hold;
        ``rows``: each weight once, and every sequence's whole context, as rows of a batch without sharing read it.
    """
    rate = max(record["bytes_per_second"].values())
    contexts = {"tree": prompt_tokens + width, "rows": width * (prompt_tokens + (new_tokens + 1) / 2)}
    return {name: (record["weights"] + prompts * tokens * record["kv_per_token"]) / rate for name, tokens in contexts.items()}
