from __future__ import annotations

from typing import ClassVar

import numpy as np
import placed
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from saffron.chat import ChatFormat, ChatFormats
from saffron.engine.compute import ModelShape
from saffron.models import device
from saffron.models import verdicts as engine
from saffron.models.verdicts import verdicts
from saffron.sources.conversations import Response, TokenisedResponse, tokenise

VOCABULARY = 60
FORMATS = ChatFormats(
    policy=ChatFormat((1,), (2,), ()),
    guard=ChatFormat((3, 4, 5), (6,), (7, 8, 9, 10)),
    mrm=ChatFormat((1,), (2,), ()),
    safe_id=11,
    unsafe_id=12,
    eos_id=0,
)


def tiny_guard(dtype: torch.dtype, kv_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).to(placed.DEVICE, dtype).eval().requires_grad_(False)


def one_forward_per_prefix(guard: LlamaForCausalLM, item: TokenisedResponse) -> np.ndarray:
    rewards = []
    for end in range(1, len(item.response_ids) + 1):
        logits = guard(placed.tensor([FORMATS.guard.render(item.prompt_ids, item.response_ids[:end])])).logits[0, -1]
        rewards.append(float(logits[FORMATS.safe_id].double() - logits[FORMATS.unsafe_id].double()))
    return np.array(rewards)


ids = st.integers(13, VOCABULARY - 1)
responses = st.lists(
    st.builds(TokenisedResponse, st.lists(ids, min_size=1, max_size=9), st.lists(ids, min_size=1, max_size=12)),
    min_size=1,
    max_size=5,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@given(items=responses, batch_size=st.integers(1, 4), tokens_per_pass=st.integers(1, 100))
@settings(max_examples=15)
def test_packed_labels_equal_one_forward_per_prefix(dtype, tolerance, items, batch_size, tokens_per_pass):
    guard = tiny_guard(dtype)
    packed, _ = verdicts(guard, FORMATS, items, batch_size=batch_size, tokens_per_pass=tokens_per_pass)
    for item, rewards in zip(items, packed, strict=True):
        expected = one_forward_per_prefix(guard, item)
        assert rewards.shape == expected.shape
        assert np.abs(rewards - expected).max() < tolerance
        assert len(item.response_ids) == 1 or np.ptp(expected) > 0


def test_memory_that_is_too_small_halves_the_batch_and_changes_no_reward(monkeypatch):
    guard = tiny_guard(torch.float64)
    rng = np.random.default_rng(0)
    items = [TokenisedResponse([13, 14], rng.integers(13, VOCABULARY, 1 + i % 7).tolist()) for i in range(9)]
    whole, size = verdicts(guard, FORMATS, items, batch_size=8)
    assert size == 8
    read, passes = engine._batch_verdicts, []

    def hungry(guard, formats, batch, positions):
        passes.append((len(batch), positions))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("no memory")
        return read(guard, formats, batch, positions)

    monkeypatch.setattr(engine, "_batch_verdicts", hungry)
    halved, size = verdicts(guard, FORMATS, items, batch_size=8, tokens_per_pass=64)
    assert size == 2
    assert [count for count, _ in passes] == [8, 4, 2, 2, 2, 2, 1]
    assert {positions for _, positions in passes} == {2}  # or a smaller batch would read as much at once
    assert all(np.abs(one - other).max() < 1e-10 for one, other in zip(halved, whole, strict=True))
    passes.clear()
    verdicts(guard, FORMATS, items, batch_size=8, at_most=size, tokens_per_pass=64)
    assert passes == [(2, 2)] * 4 + [(1, 2)]


def test_the_batch_is_sized_from_the_free_memory_of_the_guards_gpu(monkeypatch):
    guard = tiny_guard(torch.float32)
    items = [TokenisedResponse([13, 14], [15, 16, 17])] * 8
    conversation = len(FORMATS.guard.prompt([13, 14])) + 3
    one = device.reading_bytes(ModelShape.from_config(guard.config), conversation, 4 * len(FORMATS.guard.suffix), torch.float32)
    monkeypatch.setattr(device, "free_bytes", lambda _: int(3.1 * one / device.SAFETY))
    assert verdicts(guard, FORMATS, items, batch_size=8, tokens_per_pass=4 * 8 * len(FORMATS.guard.suffix))[1] == 3


class Characters:
    """A tokenizer of one id per character."""

    added_tokens_decoder: ClassVar = {}

    def __call__(self, texts, *, add_special_tokens, split_special_tokens):
        assert not add_special_tokens and split_special_tokens
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}


@pytest.mark.parametrize(
    ("prompt", "response", "expected"),
    [
        ("abc", "de", ("abc", "de")),
        ("abc", "defgh", ("abc", "def")),
        ("abcdef", "g", ("abcdef", "")),
        ("abcdefg", "h", ("abcdef", "")),
    ],
)
def test_prompt_and_response_together_are_cut_to_the_window(prompt, response, expected):
    (item,) = tokenise(Characters(), FORMATS, [Response("train", 0, "chosen", 0, prompt, response)], max_tokens=6)
    assert (item.prompt_ids, item.response_ids) == tuple([ord(letter) for letter in text] for text in expected)


def test_eos_ends_a_response_that_fits_with_it():
    responses = [Response("train", 0, "chosen", 0, "ab", text) for text in ("cd", "cde", "cdef", "cdefg")]
    items = tokenise(Characters(), FORMATS, responses, max_tokens=6, eos_id=0)
    assert [item.response_ids[-1] for item in items] == [0, 0, ord("f"), ord("f")]
