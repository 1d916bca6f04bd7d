from __future__ import annotations

import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saffron.models import device
from saffron.models.shapes import SHAPES


@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 16))
def test_out_of_memory_halves_the_batch_and_loses_nothing(count: int, size: int, room: int) -> None:
    sizes = []

    def double(batch: Sequence[int]) -> list[int]:
        if len(batch) > room:
            raise torch.OutOfMemoryError
        sizes.append(len(batch))
        return [2 * item for item in batch]

    results, used = device.in_batches(double, range(count), size, what="search.block_size")
    assert results == [2 * item for item in range(count)]
    assert all(one <= room for one in sizes)
    assert min(size, (room + 1) // 2) <= used <= size  # halved no further than needed


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_memory_that_ran_out_past_pytorchs_allocator_counts_as_well(message: str) -> None:
    def hungry(batch: Sequence[int]) -> list[int]:
        if len(batch) > 2:
            raise RuntimeError(message)
        return list(batch)

    assert device.in_batches(hungry, range(7), 4, what="x") == (list(range(7)), 2)


def test_what_a_failed_call_held_is_free_before_the_next_one() -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def hungry(batch: Sequence[int]) -> list[int]:
        assert all(tensor() is None for tensor in held)
        taken = torch.zeros(4)
        held.append(weakref.ref(taken))
        if len(batch) > 1:
            raise torch.OutOfMemoryError
        return list(batch)

    assert device.in_batches(hungry, [1, 2, 3], 3, what="x") == ([1, 2, 3], 1)
    assert len(held) == 5


def test_one_item_that_does_not_fit_is_an_error_with_a_remedy() -> None:
    def never(batch: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError

    with pytest.raises(device.DeviceMemoryError, match=r"one item alone: use a GPU with more memory, or make the budget smaller"):
        device.in_batches(never, [1, 2, 3], 2, what="the budget")


@pytest.mark.parametrize("error", [ValueError("no"), RuntimeError("CUDA error: device-side assert triggered: no")])
def test_other_errors_pass(error: Exception) -> None:
    def broken(batch: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(type(error), match="no"):
        device.in_batches(broken, [1, 2], 2, what="x")


def test_the_batch_is_what_fits_into_free_memory() -> None:
    assert device.batch_size(16, 1_000, None) == 16
    assert device.batch_size(16, 1_000, 10_000) == 8
    assert device.batch_size(16, 1_000, 10**9) == 16
    assert device.batch_size(16, 1_000, 10) == 1
    assert device.free_bytes(torch.device("cpu")) is None


def test_reading_a_text_takes_its_cache_and_one_layers_activations() -> None:
    guard = SHAPES["meta-llama/Llama-Guard-3-1B"]
    took = device.reading_bytes(guard, stored=400, read=1_000, dtype=torch.bfloat16)
    assert took == 32_768 * 400 + 2 * (8 * 2_048 + 3 * 8_192) * 1_000
    assert device.reading_bytes(guard, stored=0, read=0, dtype=torch.bfloat16) == 0


def test_a_search_at_the_papers_shapes_takes_what_its_caches_and_logits_take() -> None:
    policy, guard = SHAPES["meta-llama/Meta-Llama-3-8B-Instruct"], SHAPES["meta-llama/Llama-Guard-3-1B"]
    took = device.search_bytes([policy, guard], width=64, new_tokens=32, prompt_tokens=200, dtype=torch.bfloat16)
    # 131,072 and 32,768 bytes of keys and values per token, and the selection among the children of 64 rows.
    assert took == (131_072 + 32_768) * (200 + 64 * 32) + device.SELECTION_BYTES * 64 * 128_256
