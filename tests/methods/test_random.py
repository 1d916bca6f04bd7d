from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from saffron.methods.random import RandomKey, inverse_cdf

MASK = (1 << 64) - 1


def plain_uniform(base: int, prompt_id: int, sample: int, step: int) -> float:
    """The same hash in Python integers."""
    state = base & MASK
    for part in (prompt_id, sample, step):
        x = (state + part * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & MASK
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        state = x ^ (x >> 31)
    return (state >> 11) * 2.0**-53


@settings(max_examples=50)
@given(st.integers(0, 2**40), st.integers(0, 10**6), st.integers(0, 2**20), st.integers(0, 4096))
def test_uniform_equals_the_hash_in_plain_integers(seed: int, prompt_id: int, sample: int, step: int) -> None:
    key = RandomKey("guild_a", seed)
    drawn = key.uniform(torch.tensor([[prompt_id]]), torch.tensor([sample]), step)
    assert drawn.item() == plain_uniform(key._base, prompt_id, sample, step)


def test_uniform_depends_on_every_part_of_the_key_and_on_nothing_else() -> None:
    prompts, samples = torch.arange(5)[:, None], torch.arange(7)
    drawn = RandomKey("a", 0).uniform(prompts, samples, 3)
    assert torch.equal(drawn, RandomKey("a", 0).uniform(prompts, samples, 3))
    assert torch.equal(drawn[2:4, :3], RandomKey("a", 0).uniform(prompts[2:4], samples[:3], 3))
    others = [(RandomKey("b", 0), 3), (RandomKey("a", 1), 3), (RandomKey("a", 0), 4)]
    for other in (key.uniform(prompts, samples, step) for key, step in others):
        assert not (drawn == other).any()
    assert drawn.unique().numel() == drawn.numel()


def test_uniforms_are_uniform_and_uncorrelated_along_every_part_of_the_key() -> None:
    key = RandomKey("a", 0)
    draws = torch.stack([key.uniform(torch.arange(40)[:, None], torch.arange(64), step) for step in range(32)]).numpy()
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
    counts = np.bincount((draws.ravel() * 64).astype(int), minlength=64)
    assert stats.chisquare(counts).pvalue > 1e-4
    for axis in range(3):
        a, b = np.moveaxis(draws, axis, 0)[:-1].ravel(), np.moveaxis(draws, axis, 0)[1:].ravel()
        assert abs(np.corrcoef(a, b)[0, 1]) * np.sqrt(a.size) < 4.5
        pairs = np.histogram2d(a, b, bins=8, range=((0, 1), (0, 1)))[0]
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-4
    means = draws.mean(axis=(0, 2))  # no prompt is luckier than another
    assert np.abs(means - 0.5).max() * np.sqrt(12 * 32 * 64) < 4.5


def test_inverse_cdf_draws_the_softmax_distribution() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0, float("-inf"), 0.0], dtype=torch.float32)
    draws = RandomKey("a", 1).uniform(torch.tensor([[0]]), torch.arange(50_000), 0)[0]
    counts = torch.bincount(inverse_cdf(logits.expand(50_000, 5), draws), minlength=5).double()
    expected = logits.double().softmax(-1) * 50_000
    assert counts[3] == 0
    seen = expected > 0
    assert stats.chisquare(counts[seen].numpy(), expected[seen].numpy()).pvalue > 1e-4


@pytest.mark.parametrize(("u", "token"), [(0.0, 1), (0.2499, 1), (0.25, 2), (0.9999, 3), (1 - 2.0**-53, 3)])
def test_inverse_cdf_at_the_edges_never_takes_a_token_of_probability_zero(u: float, token: int) -> None:
    logits = torch.tensor([[0.0, 0.25, 0.25, 0.5, 0.0]]).log()
    assert inverse_cdf(logits, torch.tensor([u], dtype=torch.float64)).item() == token


def test_inverse_cdf_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, draws = torch.randn(6, 4, 11), torch.rand(6, 4, dtype=torch.float64)
    whole = inverse_cdf(logits, draws)
    monkeypatch.setattr("saffron.methods.random._CHUNK", 25)
    assert torch.equal(inverse_cdf(logits, draws), whole)
