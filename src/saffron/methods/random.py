"""Random numbers that belong to what they decide: one uniform per (seed, dataset, prompt, sample, step).

No stream is shared, so a draw depends neither on the other prompts of a batch, nor on how many samples are drawn, nor
on the order of jobs: Best-of-4 is a prefix of Best-of-64. Each number is a hash of its key: the key's parts are folded
in one by one through SplitMix64's finaliser, a bijection on 64-bit integers whose outputs pass as independent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_INCREMENT = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
#: Largest number of logits turned into float64 at once while sampling.
_CHUNK = 1 << 24


def _signed(value: int) -> int:
    """The int64 with the same 64 bits."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 (torch's own repeats the sign bit)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _fold(state: Tensor, part: Tensor) -> Tensor:
    """Mix one more part of the key into the state (int64, wrapping arithmetic)."""
    x = state + part * _signed(_INCREMENT) + _signed(_INCREMENT)
    x = (x ^ _shift(x, 30)) * _signed(_MULTIPLIERS[0])
    x = (x ^ _shift(x, 27)) * _signed(_MULTIPLIERS[1])
    return x ^ _shift(x, 31)


@dataclass(frozen=True)
class RandomKey:
    """The part of the key that all draws of one run share."""

    dataset: str
    search_seed: int

    @cached_property
    def _base(self) -> int:
        digest = hashlib.sha256(f"{self.search_seed}\n{self.dataset}".encode()).digest()
        return _signed(int.from_bytes(digest[:8], "little"))

    def uniform(self, prompt_ids: Tensor, samples: Tensor, step: int) -> Tensor:
        """Uniforms in [0, 1), float64 with 53 random bits.

        Args:
            prompt_ids: int64, broadcastable against ``samples``, e.g. ``[B, 1]``.
            samples: int64 sample indices, e.g. ``[R]``.
            step: index of the new token the number decides.
        """
        state = _fold(torch.full_like(prompt_ids, self._base), prompt_ids)
        state = _fold(state, samples)
        state = _fold(state, torch.full_like(state, step))
        return _shift(state, 11).to(torch.float64) * 2.0**-53


def inverse_cdf(logits: Tensor, uniforms: Tensor) -> Tensor:
    """Tokens drawn at temperature 1: the first token, in vocabulary order, whose cumulative probability exceeds u.

    Args:
        logits: ``[..., V]``.
        uniforms: ``[...]`` in [0, 1).

    Returns:
        int64 ``[...]``; never a token of probability 0. Computed in float64 whatever the logits' dtype.
    """
    rows = logits.reshape(-1, logits.shape[-1])
    draws = uniforms.reshape(-1, 1)
    size = max(1, _CHUNK // rows.shape[1])
    tokens = [_inverse_cdf(rows[start : start + size], draws[start : start + size]) for start in range(0, rows.shape[0], size)]
    return torch.cat(tokens).reshape(uniforms.shape)


def _inverse_cdf(rows: Tensor, draws: Tensor) -> Tensor:
    cumulative = rows.double().softmax(-1).cumsum(-1)
    total = cumulative[:, -1:]
    token = torch.searchsorted(cumulative, draws * total, right=True)
    last = torch.searchsorted(cumulative, total.contiguous())  # u close to 1 may round onto the total
    return torch.minimum(token, last).squeeze(-1)
