"""What the engine is measured against, written once more without it.

- :func:`bare_forwards`: the forward passes alone, same batch shapes, no selection, no cache reordering: the floor of any
  implementation that evaluates each sequence of the beam in a batch.
- :func:`plain_batched`: Saffron-1 as one would write it on ``transformers``: a ``DynamicCache`` with one row per sequence,
  reordered after each step; nucleus by a sort, the next beam by a top-k.
- :func:`per_token_trie`: the released code's way (docs/paper.md, "KV cache"): prompts one at a time and prefilled token by
  token, one cache piece per node, concatenated anew for every forward of at most ``batch`` sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.shapes import EOS, Pair


@dataclass
class Memory:
    """Largest key and value storage met, in bytes."""

    kv: int = 0

    def note(self, *caches: DynamicCache) -> None:
        size = sum(t.numel() * t.element_size() for cache in caches for layer in cache.layers for t in (layer.keys, layer.values))
        self.kv = max(self.kv, size)


def _prefill(model: Any, prompts: list[list[int]], width: int) -> tuple[Tensor, DynamicCache]:
    cache = DynamicCache(config=model.config)
    tokens = torch.tensor(prompts, device=model.device)
    logits = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1]
    cache.batch_repeat_interleave(width)
    return logits, cache


@torch.no_grad()
def bare_forwards(models: Pair, prompts: list[list[int]], width: int, new_tokens: int) -> Memory:
    """Both models' forwards of a search whose beam is full from the first step."""
    memory = Memory()
    caches = [_prefill(model, prompts, width)[1] for model in (models.policy, models.mrm)]
    tokens = torch.full((len(prompts) * width, 1), 5, device=models.device)
    for _ in range(new_tokens - 1):
        for model, cache in zip((models.policy, models.mrm), caches, strict=True):
            model(tokens, past_key_values=cache, use_cache=True)
    memory.note(*caches)
    return memory


@torch.no_grad()
def plain_batched(
    models: Pair, prompts: list[list[int]], width: int, new_tokens: int, top_p: float = 0.8
) -> tuple[list[list[int]], Memory]:
    """Saffron-1 (paper semantics, EOS forbidden throughout) with batched caches."""
    memory = Memory()
    batch = len(prompts)
    (logits, cache), (rewards, mrm_cache) = (_prefill(model, prompts, width) for model in (models.policy, models.mrm))
    logits, rewards = logits[:, None], rewards[:, None]
    device = models.device
    sequences = torch.empty(batch, 1, 0, dtype=torch.int64, device=device)
    empty = torch.zeros(batch, 1, dtype=torch.bool, device=device)  # places that a small pool left without a sequence
    for step in range(new_tokens):
        vocabulary = logits.shape[-1]
        logits[..., EOS] = -torch.inf
        probs, tokens = torch.softmax(logits, -1, dtype=torch.float32).sort(-1, descending=True)
        outside = (probs.cumsum(-1) - probs >= top_p) | empty[..., None]
        scores = rewards.gather(-1, tokens).masked_fill(outside, -torch.inf).flatten(1)
        best = scores.topk(width, -1)
        empty = best.values == -torch.inf
        parent = best.indices // vocabulary
        token = tokens.flatten(1).gather(1, best.indices)
        sequences = torch.cat([sequences.gather(1, parent[..., None].expand(-1, -1, step)), token[..., None]], -1)
        if step == new_tokens - 1:
            break
        if step:
            rows = (parent + torch.arange(batch, device=device)[:, None] * width).view(-1)
            cache.reorder_cache(rows)
            mrm_cache.reorder_cache(rows)
        new = token.view(-1, 1)
        logits = models.policy(new, past_key_values=cache, use_cache=True).logits.view(batch, width, -1)
        rewards = models.mrm(new, past_key_values=mrm_cache, use_cache=True).logits.view(batch, width, -1)
    memory.note(cache, mrm_cache)
    return sequences[:, 0].tolist(), memory


class _Node:
    """One token of the per-token trie: its cache piece in every layer, and its parent."""

    def __init__(self, parent: _Node | None, pieces: list[tuple[Tensor, Tensor]]) -> None:
        self.parent, self.pieces = parent, pieces

    def path(self) -> list[_Node]:
        nodes: list[_Node] = []
        node: _Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


def _read(model: Any, parents: list[_Node | None], tokens: list[int]) -> tuple[Tensor, list[_Node]]:
    """One forward of a few sequences, each cache concatenated from the pieces of its path."""
    cache = DynamicCache(config=model.config)
    if parents[0] is not None:
        paths = [parent.path() for parent in parents if parent is not None]
        for layer in range(model.config.num_hidden_layers):
            keys = torch.cat([torch.cat([node.pieces[layer][0] for node in path], 2) for path in paths], 0)
            values = torch.cat([torch.cat([node.pieces[layer][1] for node in path], 2) for path in paths], 0)
            cache.update(keys, values, layer)
    logits = model(torch.tensor(tokens, device=model.device)[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
    nodes = []
    for row, parent in enumerate(parents):
        pieces = [
            (layer.keys[row : row + 1, :, -1:].clone(), layer.values[row : row + 1, :, -1:].clone()) for layer in cache.layers
        ]
        nodes.append(_Node(parent, pieces))
    return logits, nodes


@torch.no_grad()
def per_token_trie(
    models: Pair, prompts: list[list[int]], width: int, new_tokens: int, batch: int, top_p: float = 0.8
) -> list[list[int]]:
    """Saffron-1 (paper semantics, EOS forbidden throughout), forwards of at most ``batch`` sequences."""
    answers = []
    for prompt in prompts:
        beams: list[tuple[list[int], list[_Node], Tensor, Tensor]] = []
        roots = []
        for model in (models.policy, models.mrm):
            node: _Node | None = None
            for token in prompt:
                logits, [node] = _read(model, [node], [token])
            roots.append((node, logits[0]))
        beams = [([], [root for root, _ in roots], roots[0][1], roots[1][1])]
        for step in range(new_tokens):
            pool = []
            for place, (_, _, logits, rewards) in enumerate(beams):
                logits[EOS] = -torch.inf
                probs, tokens = torch.softmax(logits, -1, dtype=torch.float32).sort(descending=True)
                inside = tokens[probs.cumsum(-1) - probs < top_p]
                values, order = rewards[inside].topk(min(width, len(inside)))
                pool += [(value, place, token) for value, token in zip(values.tolist(), inside[order].tolist(), strict=True)]
            chosen = sorted(pool, key=lambda entry: -entry[0])[:width]
            if step == new_tokens - 1:
                answers.append([*beams[chosen[0][1]][0], chosen[0][2]])
                break
            grown = []
            for start in range(0, len(chosen), batch):
                group = chosen[start : start + batch]
                read = [
                    _read(model, [beams[place][1][which] for _, place, _ in group], [token for _, _, token in group])
                    for which, model in enumerate((models.policy, models.mrm))
                ]
                for row, (_, place, token) in enumerate(group):
                    nodes = [nodes[row] for _, nodes in read]
                    grown.append(([*beams[place][0], token], nodes, read[0][0][row], read[1][0][row]))
            beams = grown
    return answers
