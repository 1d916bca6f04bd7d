"""How much fits on a device at once, and going on when it did not."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from saffron.engine.compute import ModelShape

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Bytes per row and entry of the vocabulary that a step of a search holds at most: Saffron-1's selection on the device, with
#: probabilities and rewards in float32, two sorts with their indices, and cumulated mass in float64.
SELECTION_BYTES = 50
#: Share of the free memory that a batch is sized for; the rest is for what the estimate leaves out.
SAFETY = 0.8
#: How CUDA ("CUDA error: out of memory") and its libraries (CUBLAS_STATUS_ALLOC_FAILED) say that memory is out.
OUT_OF_MEMORY = ("CUDA error: out of memory", "_STATUS_ALLOC_FAILED")


class DeviceMemoryError(RuntimeError):
    """Not even one item fits on the device; names what to make smaller."""


def free_bytes(device: torch.device) -> int | None:
    """Memory a new tensor could take on a GPU, PyTorch's own reserve included; None on a CPU."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def name(device: torch.device) -> str:
    """What a record of batch sizes calls the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def search_bytes(shapes: Sequence[ModelShape], width: int, new_tokens: int, prompt_tokens: int, dtype: torch.dtype) -> int:
    """Bytes one prompt of a search takes: the tries' keys and values, and the selection of a step.

    Args:
        shapes: the models that are searched with.
        width: sequences per prompt.
        new_tokens: of each.
        prompt_tokens: of the longest prompt as any model reads it.
        dtype: of the caches.
    """
    tokens = prompt_tokens + width * new_tokens
    caches = sum(shape.kv_bytes_per_token(dtype.itemsize) for shape in shapes) * tokens
    return caches + SELECTION_BYTES * width * max(shape.vocab_size for shape in shapes)


def reading_bytes(shape: ModelShape, stored: int, read: int, dtype: torch.dtype) -> int:
    """Bytes one text takes while a model reads it: keys and values, and the activations of one layer.

    Args:
        shape: the model's.
        stored: tokens whose keys and values are kept (0 without a cache).
        read: tokens in one forward at most.
        dtype: of the model.
    """
    activations = 8 * shape.hidden_size + 3 * shape.intermediate_size
    return shape.kv_bytes_per_token(dtype.itemsize) * stored + dtype.itemsize * activations * read


def batch_size(wanted: int, bytes_per_item: int, free: int | None) -> int:
    """Items that fit into the free memory, from 1 to ``wanted`` (all of them where memory is not known)."""
    if free is None:
        return wanted
    return max(1, min(wanted, int(SAFETY * free) // max(1, bytes_per_item)))


def _out_of_memory(error: RuntimeError) -> bool:
    """Also true of what CUDA and its libraries allocate past PyTorch's allocator, whose errors have no type of their own."""
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)


def in_batches(
    function: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int, *, what: str
) -> tuple[list[Result], int]:
    """Apply ``function`` batch by batch; out of memory halves the batch and goes on.

    Args:
        function: one result per item; must not keep state of a failed call.
        items: all items.
        size: items per batch to start with.
        what: what a single item consists of, for the error.

    Returns:
        Results in the items' order, and the smallest batch size that was used.

    Raises:
        DeviceMemoryError: if a single item does not fit.
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + size]
        try:
            results += function(batch)
            continue
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
        # Only from here on, past the error and its traceback, is what the failed call had allocated free.
        if len(batch) == 1:
            raise DeviceMemoryError(f"out of memory on one item alone: use a GPU with more memory, or make {what} smaller")
        size = math.ceil(len(batch) / 2)
        log.warning("out of memory: going on with batches of %d", size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return results, size
