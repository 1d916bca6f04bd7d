"""Saffron-1's selection: nuclei, the best candidates, the next beam; exact, ties included.

Order is part of the definition (``docs/paper.md``, "The two semantics, exactly"): candidates stand in beam order, those of one
sequence by descending policy probability, equal probabilities by token id, and every sort is stable.

There are two ways to the same answer. On a CPU, :func:`nucleus` sorts values only (vectorised, an order of magnitude faster
than a stable sort with indices), and what passes is listed sparsely. On a GPU, :func:`nuclei` and :func:`best_dense` keep
fixed shapes and never wait for the device; :func:`best_listed` is for a scorer that is called once per candidate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saffron.methods.repetition import without

#: Reward of a token the MRM never saw as a target: below every seen one, but selectable when nothing else is left.
UNSEEN_REWARD = -1024.0

Ints = NDArray[np.int64]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Candidates:
    """All candidates of a step, prompts in order, beam rows in order, token ids ascending within a row.

    Attributes:
        prompt, row, token: [C] indices into [B, R, V].
        probability: [C] policy probabilities.
    """

    prompt: Ints
    row: Ints
    token: Ints
    probability: Floats


@dataclass(frozen=True)
class Best:
    """The best candidates of each prompt, best first.

    Attributes:
        row: [B, N] beam row each extends.
        token: [B, N].
        reward: [B, N].
        score: [B, N] what they are ordered by: the reward, or more than it.
        valid: [B, N] bool; false where a prompt has fewer candidates.
        index: [B, N] position in the list of all prompts' candidates (None where they are not listed).
    """

    row: Tensor
    token: Tensor
    reward: Tensor
    score: Tensor
    valid: Tensor
    index: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Best:
        """The same of each tensor."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        mapped: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
        return Best(**mapped)


def probabilities(logits: Tensor, eos_token_id: int, forbid_eos: bool, repeating: Tensor | None = None) -> Tensor:
    """Policy distribution at temperature 1, in float32 or better, of the tokens that are allowed.

    Args:
        logits: [..., V]; overwritten at EOS when it is forbidden.
        eos_token_id: the end-of-sequence token.
        forbid_eos: whether fewer than the least number of new tokens have been generated.
        repeating: [..., V] bool, tokens that get no mass either, unless nothing else is left.
    """
    if forbid_eos:
        logits[..., eos_token_id] = -torch.inf
    if repeating is not None:
        logits = without(logits, repeating)
    return torch.softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def plausible(probs: Tensor, *, min_p: float = 0.0, noise_threshold: float = 0.0) -> Tensor:
    """The distribution without tokens that are there by noise alone; the most likely ones always stay.

    Args:
        probs: [..., V].
        min_p: least share of the most likely token's probability (arXiv 2407.01082; 0: none). As with Transformers' warpers,
            nucleus and min-p together leave what both leave: no mass moves to others.
        noise_threshold: tokens of at most this probability are noise, and the others share their mass (Lp-Reg's proxy
            distribution, arXiv 2510.03222; 0: none).
    """
    if noise_threshold:
        most = probs.amax(-1, keepdim=True)
        probs = probs.masked_fill((probs <= noise_threshold) & (probs < most), 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    if min_p:
        probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0.0)
    return probs


def undefined(probs: Tensor, alive: Tensor) -> Tensor:
    """[] bool: whether the distribution [B, R, V] of a row that is ``alive`` [B, R] holds NaN (then all of it does)."""
    return (probs[..., 0].isnan() & alive).any()


def nucleus(probs: Tensor, alive: Tensor, top_p: float) -> Candidates:
    """The smallest set of most likely tokens of each row: a token is in while the mass before it is below ``top_p``.

    Args:
        probs: [B, R, V] on the CPU.
        alive: [B, R] bool; other rows have no candidates.
        top_p: nucleus mass.

    Raises:
        ValueError: if the distribution of a living row holds NaN.
    """
    _batch, rows, vocab = probs.shape
    refuse_undefined(bool(undefined(probs, alive)), False)
    flat = probs.reshape(-1, vocab)[alive.view(-1)] if not bool(alive.all()) else probs.reshape(-1, vocab)
    values = flat.numpy()
    descending = -values
    descending.sort(axis=-1)  # ascending negatives: values only, hence vectorised
    mass = torch.from_numpy(descending).cumsum(-1, dtype=torch.float64).numpy()
    size = 1 + np.count_nonzero(mass[:, :-1] > -top_p, axis=-1)
    least = -descending[np.arange(len(size)), size - 1]
    least = np.maximum(least, np.finfo(values.dtype).smallest_subnormal)  # a token without mass is never a candidate
    inside = values >= least[:, None]
    counts = np.count_nonzero(inside, axis=-1)
    for row in np.flatnonzero(counts > size):  # ties across the border: the lower token ids are in
        tied = np.flatnonzero(values[row] == least[row])
        inside[row, tied[len(tied) - (counts[row] - size[row]) :]] = False
        counts[row] = size[row]
    index = np.flatnonzero(inside.reshape(-1))
    place = np.repeat(np.arange(len(counts)), counts)
    token = index - place * vocab
    origin = np.flatnonzero(alive.view(-1).numpy())[place]
    return Candidates(origin // rows, origin % rows, token, values.reshape(-1)[index])


def best(candidates: Candidates, rewards: Floats, batch: int, count: int, bonus: Floats | None = None) -> Best:
    """The ``count`` candidates of each prompt with the highest rewards, or rewards and bonuses.

    Args:
        candidates: all candidates.
        rewards: [C] their rewards.
        batch: number of prompts B.
        count: N.
        bonus: [C] what is added to a reward where candidates are compared.

    Raises:
        ValueError: if a reward is NaN.
    """
    refuse_undefined(False, bool(np.isnan(rewards).any()))
    scores = rewards if bonus is None else rewards + bonus
    index = np.zeros((batch, count), dtype=np.int64)
    valid = np.zeros((batch, count), dtype=bool)
    borders = np.searchsorted(candidates.prompt, np.arange(batch + 1))
    for prompt in range(batch):
        start, stop = borders[prompt], borders[prompt + 1]
        chosen = start + _first(scores[start:stop], candidates.row[start:stop], candidates.probability[start:stop], count)
        index[prompt, : len(chosen)] = chosen
        valid[prompt, : len(chosen)] = True
    rows, tokens = candidates.row[index], candidates.token[index]
    chosen_rewards, chosen_scores = (np.where(valid, values[index], -np.inf) for values in (rewards, scores))
    return Best(*(torch.from_numpy(x) for x in (rows, tokens, chosen_rewards, chosen_scores, valid, index)))


def _first(rewards: Floats, rows: Ints, probability: Floats, count: int) -> Ints:
    """Indices of the first ``count`` by (reward descending, row, probability descending, position)."""
    kept = None
    if len(rewards) > count:
        border = np.partition(rewards, len(rewards) - count)[len(rewards) - count]
        kept = np.flatnonzero(rewards >= border)
        if len(kept) > 2 * count:  # many ties at the border: rows beyond those that fill the count are out
            tied = kept[rewards[kept] == border]
            enough = rows[tied[count - 1]] if len(tied) >= count else rows[-1]
            kept = kept[(rewards[kept] > border) | (rows[kept] <= enough)]
        rewards, rows, probability = rewards[kept], rows[kept], probability[kept]
    order = np.lexsort((-probability, rows, -rewards))[:count]
    return order if kept is None else kept[order]


@dataclass(frozen=True)
class Nuclei:
    """What :class:`Candidates` lists, in fixed shapes on any device.

    Attributes:
        token: [B, R, V] token ids by descending probability, equal ones by id.
        inside: [B, R, V] bool, in the nucleus of a living row.
    """

    token: Tensor
    inside: Tensor

    def first(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """The candidates of each prompt one after another, in :class:`Candidates`' prompt and row order, by probability.

        Args:
            size: C, at least 1 and the largest number of candidates of a prompt.

        Returns:
            Row and token [B, C], and [B, C] bool, whether the place holds a candidate.
        """
        inside = self.inside.flatten(1)
        place = torch.argsort(~inside, dim=1, stable=True)[:, :size]
        return place // self.token.shape[2], self.token.flatten(1).gather(1, place), inside.gather(1, place)


def nuclei(probs: Tensor, alive: Tensor, top_p: float) -> Nuclei:
    """The candidates that :func:`nucleus` lists, by a stable sort.

    Args:
        probs: [B, R, V].
        alive: [B, R] bool; other rows have no candidates.
        top_p: nucleus mass.
    """
    values, tokens = probs.sort(dim=-1, descending=True, stable=True)
    mass = values.cumsum(-1, dtype=torch.float64)
    inside = torch.ones_like(alive)[..., None].expand_as(values).clone()
    inside[..., 1:] = mass[..., :-1] < top_p
    inside &= (values > 0) & alive[..., None]
    return Nuclei(tokens, inside)


def best_dense(found: Nuclei, rewards: Tensor, count: int, bonus: Tensor | None = None) -> Best:
    """What :func:`best` gives, by a stable sort of fixed shape.

    Args:
        found: all candidates.
        rewards: [B, R, V] by token id.
        count: N.
        bonus: [B, R, V] by token id.
    """
    vocabulary = rewards.shape[2]
    scores = rewards if bonus is None else rewards + bonus
    best_scores, place, valid = _highest(scores.gather(-1, found.token).flatten(1), found.inside.flatten(1), count)
    row, token = place // vocabulary, found.token.flatten(1).gather(1, place)
    own = best_scores if bonus is None else entries_at(rewards, row, token).masked_fill(~valid, -torch.inf)
    return Best(row, token, own, best_scores, valid)


def best_listed(row: Tensor, token: Tensor, there: Tensor, rewards: Tensor, count: int, bonus: Tensor | None = None) -> Best:
    """What :func:`best` gives, of the candidates as :meth:`Nuclei.first` lists them.

    Args:
        row, token, there: [B, C] each, as listed.
        rewards: [B, C].
        count: N.
        bonus: [B, R, V] by token id.
    """
    scores = rewards if bonus is None else rewards + entries_at(bonus, row, token)
    best_scores, place, valid = _highest(scores, there, count)
    own = best_scores if bonus is None else rewards.gather(1, place).masked_fill(~valid, -torch.inf)
    starts = torch.arange(len(row), device=row.device)[:, None] * row.shape[1]
    return Best(row.gather(1, place), token.gather(1, place), own, best_scores, valid, place + starts)


def entries_at(values: Tensor, row: Tensor, token: Tensor) -> Tensor:
    """[B, C] of the values [B, R, V] of candidates: those of tokens [B, C] after rows [B, C]."""
    return values.flatten(1).gather(1, row * values.shape[2] + token)


def _highest(rewards: Tensor, there: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``count`` highest rewards [B, C] of those that are ``there``, ties in order: their values, places and validity.

    A NaN among a prompt's candidates makes all its values NaN.
    """
    lost = (rewards.isnan() & there).any(1, keepdim=True)
    if rewards.dtype == torch.float32:
        place = _first_places(rewards, there, min(count, rewards.shape[1]))
        ordered = rewards.gather(1, place)
    else:
        ordered, place = (-rewards).masked_fill(~there, torch.nan).sort(dim=-1, stable=True)  # NaN stands last
        ordered, place = -ordered[:, :count], place[:, :count]
    valid = there.gather(1, place)
    ordered = ordered.masked_fill(~valid, -torch.inf).masked_fill(lost, torch.nan)
    missing = (0, count - place.shape[1])
    if missing[1] > 0:
        ordered = torch.nn.functional.pad(ordered, missing, value=-torch.inf)
        place, valid = (torch.nn.functional.pad(x, missing) for x in (place, valid))
    return ordered, place, valid


def _first_places(rewards: Tensor, there: Tensor, count: int) -> Tensor:
    """Places [B, count] of the highest rewards [B, C] that are ``there``, then of others; equal ones in order.

    A reward and its place make one integer, so that no two are equal: the highest are then found without sorting all of them,
    which for a beam over a large vocabulary took longer than reading the models.
    """
    bits = (rewards + 0.0).view(torch.int32).long()  # -0.0 counts as 0.0
    ranked = torch.where(bits < 0, bits ^ 0x7FFF_FFFF, bits)  # ordered as the numbers are
    ranked = ranked.masked_fill(~there, -(1 << 31))
    behind = (1 << 32) - 1 - torch.arange(rewards.shape[1], device=rewards.device)
    return (1 << 32) - 1 - ((ranked << 32) | behind).topk(count, dim=1).values.bitwise_and((1 << 32) - 1)


def refuse_undefined(policy: bool, rewards: bool) -> None:
    """Stop where there is no order to select by.

    Args:
        policy: whether the policy's distribution after a growing sequence holds NaN.
        rewards: whether a candidate's reward is NaN.

    Raises:
        ValueError: if either is so.
    """
    for name, found in (("the policy's probabilities", policy), ("the reward model's rewards", rewards)):
        if found:
            raise ValueError(f"{name} hold NaN; check the model's weights, or load it in bfloat16 or float32 if in float16")
