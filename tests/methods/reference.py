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
from transformers import MinPLogitsWarper, NoRepeatNGramLogitsProcessor

UNSEEN = -1024.0


@dataclass
class Sequence:
    tokens: list[int] = field(default_factory=list)
    reward: float = -math.inf
    finished: bool = False
    score: float = -math.inf  # what sequences are compared by
    log_probability: float = 0.0


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
    min_p: float = 0.0,
    noise_threshold: float = 0.0,
    diversity_weight: float = 0.0,
    likelihood_weight: float = 0.0,
    no_repeat_ngram_size: int = 0,
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
        pool: list[Entry] = []  # in generation order
        states: dict[int, torch.Tensor] = {}
        for sequence in beam:
            if sequence.finished:
                pool.append((sequence.score, sequence.reward, sequence.log_probability, sequence, None))
                continue
            logits = last_logits(policy, prompt + sequence.tokens)
            log_probabilities = torch.log_softmax(logits, -1).tolist()
            states[id(sequence)] = (logits - logits.mean()) / (logits - logits.mean()).norm()
            if step < min_new_tokens:
                logits[eos] = -math.inf
            logits = without_repetition(logits, prompt + sequence.tokens, no_repeat_ngram_size)
            probs = torch.softmax(logits, -1).tolist()
            margin = min(margin, *(abs(p - noise_threshold) for p in probs if noise_threshold), math.inf)
            probs = without_noise(probs, noise_threshold)
            margin = min(margin, *(abs(p - min_p * max(probs)) for p in probs if min_p and p < max(probs)), math.inf)
            allowed = (MinPLogitsWarper(min_p)(None, torch.tensor(probs, dtype=torch.float64).log()) > -math.inf).tolist()
            rewards = rewards_of(sequence.tokens)
            mass = 0.0
            for token in sorted(range(len(probs)), key=lambda t: -probs[t]):
                margin = min(margin, abs(mass - top_p))
                if mass >= top_p or probs[token] == 0 or not allowed[token]:
                    break
                mass += probs[token]
                reward = UNSEEN if unseen is not None and unseen[token] else rewards[token]
                log_probability = sequence.log_probability + log_probabilities[token]
                pool.append((reward + likelihood_weight * log_probability, reward, log_probability, sequence, token))
                candidates.append((tuple(sequence.tokens), token, probs[token], reward))
        if diversity_weight:
            open_ = sorted((entry for entry in pool if entry[-1] is not None), key=lambda entry: -entry[0])
            margin = min(margin, gaps(open_, 4 * width))
            chosen, gap = unlike(open_[: 4 * width], states, width, diversity_weight)
            margin = min(margin, gap)
            pool = [entry for entry in pool if entry[-1] is None or any(entry is each for each in chosen)]
        if semantics == "paper":
            ranked = sorted(pool, key=lambda entry: -entry[0])
            margin = min(margin, gaps(ranked, width))
            beam = [child(entry, eos) for entry in ranked[:width]]
        else:
            finished = [sequence for *_, sequence, token in pool if token is None]
            ranked = sorted((entry for entry in pool if entry[-1] is not None), key=lambda entry: -entry[0])
            margin = min(margin, gaps(ranked, width))
            children = [child(entry, eos, unless_ended=-math.inf) for entry in ranked[:width]]
            beam = sorted(finished + children, key=lambda sequence: -sequence.score)[:width]
            scores = sorted(sequence.score for sequence in finished + children if sequence.finished)
            margin = min([margin, *(b - a for a, b in itertools.pairwise(scores) if b != a)])
        after = {tuple(sequence.tokens) for sequence in beam}
        steps.append(Step(before, [(*entry, (*entry[0], entry[1]) in after) for entry in candidates]))
    best = max(beam, key=lambda sequence: sequence.score)
    return Reference(best.tokens, best.reward, margin, steps)


def archive_reference(
    policy: Any,
    rewards_of: Callable[[list[int]], list[float]],
    prompt: list[int],
    *,
    width: int,
    returns: int,
    top_p: float,
    max_new_tokens: int,
    min_new_tokens: int,
    eos: int,
    unseen: list[bool] | None,
) -> tuple[Sequence, float, set[tuple[int, ...]]]:
    """Archive search, its margin, and the sequences that the MRM has read."""
    beam, archive, answers, margin, read = [Sequence()], list[Sequence](), list[Sequence](), math.inf, set[tuple[int, ...]]()
    for left in range(returns, -1, -1):
        while not all(sequence.finished or len(sequence.tokens) == max_new_tokens for sequence in beam):
            pool: list[Entry] = []
            for sequence in beam:
                if sequence.finished or len(sequence.tokens) == max_new_tokens:
                    pool.append((sequence.reward, sequence.reward, 0.0, sequence, None))
                    continue
                logits = last_logits(policy, prompt + sequence.tokens)
                if len(sequence.tokens) < min_new_tokens:
                    logits[eos] = -math.inf
                probs, rewards, mass = torch.softmax(logits, -1).tolist(), rewards_of(sequence.tokens), 0.0
                read.add(tuple(sequence.tokens))
                for token in sorted(range(len(probs)), key=lambda t: -probs[t]):
                    margin = min(margin, abs(mass - top_p))
                    if mass >= top_p or probs[token] == 0:
                        break
                    mass += probs[token]
                    reward = UNSEEN if unseen is not None and unseen[token] else rewards[token]
                    pool.append((reward, reward, 0.0, sequence, token))
            ranked = sorted(pool, key=lambda entry: -entry[0])
            margin = min(margin, gaps(ranked, len(ranked)))
            beam = [child(entry, eos) for entry in ranked[:width]]
            lost = [child(entry, eos) for entry in ranked[width:] if entry[-1] is not None]
            lost = [sequence for sequence in lost if not sequence.finished and len(sequence.tokens) < max_new_tokens]
            archive = sorted(archive + lost, key=lambda sequence: -sequence.reward)[: width * returns]
            rewards = [sequence.reward for sequence in archive]
            margin = min([margin, *(a - b for a, b in itertools.pairwise(rewards) if a != b)])
        answers += beam[:1]
        if not left or not archive:
            break
        beam, archive = archive[:width], archive[width:]
    rewards = sorted(sequence.reward for sequence in answers)
    margin = min([margin, *(b - a for a, b in itertools.pairwise(rewards) if a != b)])
    return max(answers, key=lambda sequence: sequence.reward), margin, read


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


def without_noise(probs: list[float], threshold: float) -> list[float]:
    kept = [p if p > threshold or p == max(probs) else 0.0 for p in probs]
    return [p / sum(kept) for p in kept] if threshold else probs


def without_repetition(logits: torch.Tensor, text: list[int], size: int) -> torch.Tensor:
    """As Transformers forbids n-grams of ``size`` tokens to occur twice; nothing is forbidden where nothing would be left."""
    if not size:
        return logits
    masked = NoRepeatNGramLogitsProcessor(size)(torch.tensor([text]), logits[None].clone())[0]
    return masked if float(masked.max()) > -math.inf else logits


#: score, reward, log probability, parent, token (None: a finished sequence itself)
Entry = tuple[float, float, float, Sequence, int | None]


def bonus(state: torch.Tensor, inverse: torch.Tensor) -> float:
    return float(state.cpu().double() @ inverse @ state.cpu().double()) ** 0.5


def unlike(entries: list[Entry], states: dict[int, torch.Tensor], count: int, weight: float) -> tuple[list[Entry], float]:
    """Entries chosen one after another by score and elliptical bonus, and how close the closest choice was."""
    left, chosen, margin = list(entries), list[Entry](), math.inf
    covered = torch.eye(len(next(iter(states.values()))) if states else 1, dtype=torch.float64)
    while left and len(chosen) < count:
        inverse = torch.linalg.inv(covered)
        values = [entry[0] + weight * bonus(states[id(entry[3])], inverse) for entry in left]
        best = max(range(len(left)), key=lambda i: values[i])
        margin = min([margin, *(values[best] - value for i, value in enumerate(values) if i != best)])
        state = states[id(left[best][3])].cpu().double()
        covered = covered + torch.outer(state, state)
        chosen.append(left.pop(best))
    return chosen, margin


def child(entry: Entry, eos: int, unless_ended: float | None = None) -> Sequence:
    score, reward, log_probability, parent, token = entry
    if token is None:
        return parent
    if token != eos and unless_ended is not None:
        score = reward = unless_ended
    return Sequence([*parent.tokens, token], reward, token == eos, score, log_probability)


def gaps(ranked: list[Entry], width: int) -> float:
    """Smallest difference between neighbours whose order decides something; exact ties are decided by position."""
    values = [entry[0] for entry in ranked[: width + 1]]
    return min((a - b for a, b in itertools.pairwise(values) if a != b), default=math.inf)
