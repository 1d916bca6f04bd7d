"""Saffron-1 without an engine: one full forward pass per sequence, plain lists, word for word as docs/paper.md defines it.

Slow and obvious on purpose; it shares no code with the library. Besides the chosen continuations it reports the smallest
decision margin: how far the closest call (a nucleus border, a reward comparison) was from going the other way.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import placed
import torch

UNSEEN = -1024.0


@dataclass
class Sequence:
    tokens: list[int] = field(default_factory=list)
    reward: float = -math.inf
    finished: bool = False


@dataclass
class Step:
    """The beam before a step, and its candidates in generation order: (parent, token, probability, reward, whether kept)."""

    beam: list[tuple[int, ...]]
    candidates: list[tuple[tuple[int, ...], int, float, float, bool]]


@dataclass
class Reference:
    tokens: list[int]
    reward: float
    margin: float
    steps: list[Step]


def last_logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(placed.tensor([ids])).logits[0, -1]


def saffron_reference(
    policy: Any,
    rewards_of: Callable[[list[int]], list[float]],
    prompt: list[int],
    *,
    width: int,
    top_p: float,
    max_new_tokens: int,
    min_new_tokens: int,
    eos: int,
    unseen: list[bool] | None,
    semantics: str,
) -> Reference:
    """``rewards_of`` gives the rewards of all children of a sequence of new tokens, by token id."""
    beam = [Sequence()]
    margin = math.inf
    steps = []
    for step in range(max_new_tokens):
        if all(sequence.finished for sequence in beam):
            break
        candidates: list[tuple[tuple[int, ...], int, float, float]] = []
        before = [tuple(sequence.tokens) for sequence in beam]
        pool: list[tuple[float, Sequence, int | None]] = []  # (own reward, sequence, token) in generation order
        for sequence in beam:
            if sequence.finished:
                pool.append((sequence.reward, sequence, None))
                continue
            logits = last_logits(policy, prompt + sequence.tokens)
            if step < min_new_tokens:
                logits[eos] = -math.inf
            probs = torch.softmax(logits, -1).tolist()
            rewards = rewards_of(sequence.tokens)
            mass = 0.0
            for token in sorted(range(len(probs)), key=lambda t: -probs[t]):
                margin = min(margin, abs(mass - top_p))
                if mass >= top_p or probs[token] == 0:
                    break
                mass += probs[token]
                reward = UNSEEN if unseen is not None and unseen[token] else rewards[token]
                pool.append((reward, sequence, token))
                candidates.append((tuple(sequence.tokens), token, probs[token], reward))
        if semantics == "paper":
            ranked = sorted(pool, key=lambda entry: -entry[0])
            margin = min(margin, gaps(ranked, width))
            beam = [child(sequence, token, reward, eos, reward) for reward, sequence, token in ranked[:width]]
        else:
            finished = [sequence for _, sequence, token in pool if token is None]
            ranked = sorted((entry for entry in pool if entry[2] is not None), key=lambda entry: -entry[0])
            margin = min(margin, gaps(ranked, width))
            children = [
                child(sequence, token, reward, eos, reward if token == eos else -math.inf)
                for reward, sequence, token in ranked[:width]
            ]
            beam = sorted(finished + children, key=lambda sequence: -sequence.reward)[:width]
            rewards = sorted(sequence.reward for sequence in finished + children if sequence.finished)
            margin = min([margin, *(b - a for a, b in itertools.pairwise(rewards) if b != a)])
        after = {tuple(sequence.tokens) for sequence in beam}
        steps.append(Step(before, [(*entry, (*entry[0], entry[1]) in after) for entry in candidates]))
    best = max(beam, key=lambda sequence: sequence.reward)
    return Reference(best.tokens, best.reward, margin, steps)


def multifurcation_rewards(mrm: Any, prompt: list[int]) -> Callable[[list[int]], list[float]]:
    """The MRM's logits are the rewards of all children."""
    return lambda tokens: last_logits(mrm, prompt + tokens).tolist()


def process_rewards(
    guard: Any, prompt: list[int], suffix: list[int], safe: int, unsafe: int
) -> Callable[[list[int]], list[float]]:
    """The guard reads every child with the suffix that asks for its verdict."""

    def rewards_of(tokens: list[int]) -> list[float]:
        verdicts = [last_logits(guard, [*prompt, *tokens, child, *suffix]) for child in range(guard.config.vocab_size)]
        return [float(logits[safe] - logits[unsafe]) for logits in verdicts]

    return rewards_of


def child(parent: Sequence, token: int | None, reward: float, eos: int, carried: float) -> Sequence:
    return parent if token is None else Sequence([*parent.tokens, token], carried, token == eos)


def gaps(ranked: list[tuple[float, Sequence, int | None]], width: int) -> float:
    """Smallest difference between neighbours whose order decides something; exact ties are decided by position."""
    values = [entry[0] for entry in ranked[: width + 1]]
    return min((a - b for a, b in itertools.pairwise(values) if a != b), default=math.inf)
