"""The baselines once more, as plainly as they can be written: one sequence at a time, every score a full forward.

Nothing here knows tries, caches or batches. ``Reference.margin`` is the smallest distance to another decision met on the
way, so that a comparison in float32 can leave out the runs that rounding may decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import placed
import torch
from transformers import NoRepeatNGramLogitsProcessor

from saffron.chat import ChatFormats
from saffron.methods.base import SearchPrompt
from saffron.methods.random import RandomKey

Tokens = tuple[int, ...]


@dataclass
class Answer:
    output_ids: list[int]
    reward: float | None
    finished: bool


@dataclass
class Reference:
    policy: torch.nn.Module
    guard: torch.nn.Module
    formats: ChatFormats
    key: RandomKey
    max_new_tokens: int
    margin: float = math.inf
    read: set[Tokens] = field(default_factory=set)  # what the policy has read
    verdicts: set[Tokens] = field(default_factory=set)  # what the guard has judged
    logits_of: dict[tuple[bool, Tokens], torch.Tensor] = field(default_factory=dict)

    # ------------------------------------------------------------------------------------------------ what models say
    def _forward(self, guard: bool, ids: Sequence[int]) -> torch.Tensor:
        at = (guard, tuple(ids))
        if at not in self.logits_of:
            with torch.no_grad():
                model = self.guard if guard else self.policy
                self.logits_of[at] = model(placed.tensor([list(ids)]), use_cache=False).logits[0, -1].double()
        return self.logits_of[at]

    def logits(self, prompt: SearchPrompt, tokens: Tokens) -> list[float]:
        self.read.add(tokens)
        return self._forward(False, [*prompt.policy_ids, *tokens]).tolist()

    def reward(self, prompt: SearchPrompt, tokens: Tokens) -> float:
        self.verdicts.add(tokens)
        logits = self._forward(True, [*prompt.guard_ids, *tokens, *self.formats.guard.suffix])
        return float(logits[self.formats.safe_id] - logits[self.formats.unsafe_id])

    # ------------------------------------------------------------------------------------------------------ decisions
    def note(self, gap: float) -> None:
        self.margin = min(self.margin, abs(gap))

    def order(self, values: Sequence[float], first: int | None = None) -> list[int]:
        """Positions by value, descending, ties in the order given; only the ``first`` of them decide."""
        positions = sorted(range(len(values)), key=lambda i: -values[i])
        used = positions if first is None else positions[: first + 1]
        for a, b in pairwise(used):
            if values[a] != values[b]:  # equal values are the same sequence twice
                self.note(values[a] - values[b])
        return positions[:first]

    def ended(self, tokens: Tokens) -> bool:
        return bool(tokens) and tokens[-1] == self.formats.eos_id

    def complete(self, tokens: Tokens) -> bool:
        return self.ended(tokens) or len(tokens) == self.max_new_tokens

    def log_probabilities(self, prompt: SearchPrompt, tokens: Tokens) -> list[float]:
        logits = self.logits(prompt, tokens)
        top = max(logits)
        log_total = top + math.log(sum(math.exp(x - top) for x in logits))
        return [x - log_total for x in logits]

    def sample(self, prompt: SearchPrompt, tokens: Tokens, index: int) -> int:
        u = self.key.uniform(placed.tensor([[prompt.prompt_id]]), placed.tensor([index]), len(tokens)).item()
        cumulative = 0.0
        chosen = None
        for token, log_probability in enumerate(self.log_probabilities(prompt, tokens)):
            cumulative += math.exp(log_probability)
            self.note(cumulative - u)
            if chosen is None and cumulative > u:
                chosen = token
        assert chosen is not None
        return chosen

    def best(self, rewarded: Sequence[tuple[Tokens, float]]) -> Answer:
        tokens, reward = rewarded[self.order([reward for _, reward in rewarded], 1)[0]]
        return Answer(list(tokens), reward, self.ended(tokens))


def no_defense(ref: Reference, prompt: SearchPrompt) -> Answer:
    tokens: Tokens = ()
    while not ref.complete(tokens):
        tokens += (ref.sample(prompt, tokens, 0),)
    return Answer(list(tokens), None, ref.ended(tokens))


def best_of_n(ref: Reference, prompt: SearchPrompt, n: int) -> Answer:
    samples = []
    for index in range(n):
        tokens: Tokens = ()
        while not ref.complete(tokens):
            tokens += (ref.sample(prompt, tokens, index),)
        samples.append((tokens, ref.reward(prompt, tokens)))
    return ref.best(samples)


def beam_search(
    ref: Reference,
    prompt: SearchPrompt,
    width: int,
    children: int,
    likelihood_weight: float = 0.0,
    no_repeat_ngram_size: int = 0,
) -> Answer:
    beam: list[tuple[Tokens, float, float, float]] = [((), 0.0, 0.0, 0.0)]  # tokens, log probability, reward, score
    while not all(ref.complete(tokens) for tokens, *_ in beam):
        pool = []
        for entry in beam:
            tokens, log_probability = entry[:2]
            if ref.ended(tokens):
                pool.append(entry)
                continue
            log_probabilities = ref.log_probabilities(prompt, tokens)
            logits = without_repetition(ref.logits(prompt, tokens), [*prompt.policy_ids, *tokens], no_repeat_ngram_size)
            for token in ref.order(logits, children):
                if logits[token] == -math.inf:
                    break
                child = (*tokens, token)
                total = log_probability + log_probabilities[token]
                reward = ref.reward(prompt, child)
                pool.append((child, total, reward, reward + likelihood_weight * total))
        beam = [pool[i] for i in ref.order([entry[3] for entry in pool], width)]
    tokens, _, reward, _ = beam[ref.order([entry[3] for entry in beam], 1)[0]]
    return Answer(list(tokens), reward, ref.ended(tokens))


def without_repetition(logits: list[float], text: list[int], size: int) -> list[float]:
    """As Transformers forbids n-grams of ``size`` tokens to occur twice; nothing is forbidden where nothing would be left."""
    if not size:
        return logits
    masked = NoRepeatNGramLogitsProcessor(size)(torch.tensor([text]), torch.tensor([logits], dtype=torch.float64))[0].tolist()
    return masked if max(masked) > -math.inf else logits


def deal(ref: Reference, prompt: SearchPrompt, width: int, children: int, lookahead: int, reward_weight: float) -> Answer:
    beam: list[tuple[Tokens, float, float, float]] = [((), 0.0, 0.0, 0.0)]  # tokens, log probability, reward, score
    while not all(ref.complete(tokens) for tokens, *_ in beam):
        pool = []
        for entry in beam:
            tokens, log_probability = entry[:2]
            if ref.ended(tokens):
                pool.append(entry)
                continue
            log_probabilities = ref.log_probabilities(prompt, tokens)
            for token in ref.order(log_probabilities, children):
                child = (*tokens, token)
                ahead = child
                while not ref.complete(ahead) and len(ahead) < len(child) + lookahead:
                    ahead += (ref.order(ref.logits(prompt, ahead), 1)[0],)
                total = log_probability + log_probabilities[token]
                reward = ref.reward(prompt, ahead)
                pool.append((child, total, reward, total + reward_weight * reward))
        beam = [pool[i] for i in ref.order([entry[3] for entry in pool], width)]
    tokens, _, reward, _ = beam[ref.order([entry[3] for entry in beam], 1)[0]]
    return Answer(list(tokens), reward, ref.ended(tokens))


def rebase(
    ref: Reference, prompt: SearchPrompt, budget: int, step_tokens: int, temperature: float, widths: str, weights: str
) -> Answer:
    leaves: list[tuple[Tokens, float]] = []
    front: list[tuple[Tokens, int]] = [((), budget)]
    left = budget
    while left > 0 and front:
        slots = [tokens for tokens, width in front for _ in range(width)]
        live = []
        for index, tokens in enumerate(slots):
            start = len(tokens)
            while not ref.complete(tokens) and len(tokens) < start + step_tokens:
                tokens += (ref.sample(prompt, tokens, index),)
            (leaves if ref.complete(tokens) else live).append((tokens, ref.reward(prompt, tokens)))
            left -= ref.complete(tokens)
        live = [live[i] for i in ref.order([reward for _, reward in live])]
        if live and left > 0:
            shares = rebase_widths(ref, [reward for _, reward in live], left, temperature, widths, weights)
            front = [(tokens, share) for (tokens, _), share in zip(live, shares, strict=True) if share > 0]
        else:
            front = []
    return ref.best(leaves)


def rebase_widths(ref: Reference, rewards: list[float], left: int, temperature: float, widths: str, weights: str) -> list[int]:
    """Children of each live node, best first; values within 1e-9 of a rounding edge are on it."""
    values = [1 / (1 + math.exp(-r)) if weights == "sigmoid" else r for r in rewards]
    top = max(values)
    e = [math.exp((value - top) / temperature) for value in values]
    shares = []
    rest, total = left, sum(e)
    for value in e:
        share = rest * value / total if widths == "release" else left * value / sum(e)
        edge = round(2 * share) / 2 if widths == "paper" else round(share)
        if abs(share - edge) < 1e-9:
            share = edge
        elif widths == "release" or round(2 * share) % 2:
            ref.note(share - edge)
        if widths == "release":
            count = min(math.ceil(share), rest)
            rest, total = rest - count, total - value
        else:
            count = round(share)
        shares.append(count)
        if rest <= 0 or total <= 0:
            shares += [0] * (len(e) - len(shares))
            break
    if not any(shares):
        shares[0] = 1
    return shares
