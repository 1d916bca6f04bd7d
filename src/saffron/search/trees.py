"""Whole searches, recorded for Figures 1 and 3.

``trees.json`` holds::

    dataset, train_seed, search_seed
    searches: one entry per recorded search (Saffron-1 and Best-of-N on the same prompts)
        prompt_id, method, budget
        prompt_tokens       tokens of the prompt as the policy reads it, prefill included
        nodes               the trie over the prompt, parents before children, as columns
            parent          index of the node before, -1 for the prompt
            token, text
            reward          Saffron-1: M(s)[a]; Best-of-N: R of the whole sample at its last token, null before it
        ends                nodes that end their sequence (EOS, or the token limit): the policy never reads them
        engine              the engine's own count of what the policy read, prompt included
            tokens          unique tokens
            context         sum of their context lengths, each token's own place included
        output              node of the answer's last token
    step: one step of the first prompt's Saffron-1 search, from one beam sequence (which one: :func:`shown_step`)
        prompt_id, step     index of the new token it decides
        prefix_text         the beam sequence, token by token
        candidates          in generation order: token, text, probability (policy), mrm_reward, prm_reward (the guard's R of
                            the same continuation), seen (by the MRM in training), kept (in the next beam)
        mrm_calls, mrm_flops    what scoring the candidates costs: one MRM call on the sequence's last token ...
        prm_calls, prm_flops    ... or one PRM call per candidate, each of the candidate and the guard's suffix
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from saffron import records
from saffron.config import as_dict
from saffron.engine.compute import ModelShape
from saffron.engine.trie import ROOT
from saffron.jobs import SearchJob, beside
from saffron.layout import Layout
from saffron.methods.base import Block, Result, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.methods.saffron.search import record, unseen_tokens
from saffron.methods.saffron.tree import SearchTree, TreeCandidate, TreeStep
from saffron.methods.sampling import draw_samples
from saffron.methods.verdicts import Verdicts
from saffron.search.inputs import Inputs

#: New token from which Figure 1's step is taken, so that there is a beam sequence to show.
FIRST_STEP = 4


def trees(job: SearchJob, layout: Layout) -> None:
    """Record a few searches under attack into ``layout.search_trees`` (format: see the module).

    Raises:
        RecordError: if prompts or models are missing.
    """
    torch.set_num_threads(job.runtime.torch_threads)
    (width,), (search_seed,) = job.budgets, job.search_seeds
    inputs = Inputs(job, layout, also=frozenset({"guard"}))  # which rewards the samples of Best-of-N
    prompts = [prompt.search for prompt in inputs.prompts]
    block = Block(inputs.models, prompts, RandomKey(job.dataset, search_seed), job.max_new_tokens)
    recorded = record(block, inputs.settings, width)
    searches = []
    for prompt, (result, tree), sampled in zip(prompts, recorded, _samples(block, width), strict=True):
        searches.append(_saffron_entry(inputs, prompt, result, tree, block.max_new_tokens))
        searches.append(_samples_entry(inputs, prompt, sampled, block.max_new_tokens))
    found = {"dataset": job.dataset, "train_seed": job.seed, "search_seed": search_seed, "searches": searches}
    path = layout.search_trees(job.seed)
    records.write_json(beside(path), as_dict(job))
    records.write_json(path, found | {"step": _step_entry(inputs, prompts[0], recorded[0][1])})


def _saffron_entry(inputs: Inputs, prompt: SearchPrompt, result: Result, tree: SearchTree, limit: int) -> dict[str, Any]:
    candidates = [candidate for step in tree.steps for candidate in step.candidates]
    reward = {candidate.node: candidate.reward for candidate in candidates if candidate.node is not None}
    read = {"tokens": tree.tokens_read, "context": tree.context_read}
    return _entry(inputs, prompt, "saffron", tree.nodes, reward, result.output_ids, read, limit)


@dataclass(frozen=True)
class _Sampled:
    """Best-of-N of one prompt: samples with their rewards, and what the policy read for them, as ``engine`` of the format."""

    samples: list[tuple[list[int], float]]
    read: dict[str, int]

    @property
    def best(self) -> list[int]:
        return max(self.samples, key=lambda sample: sample[1])[0]


def _samples(block: Block, width: int) -> list[_Sampled]:
    drawn = draw_samples(block, width)
    rewards = _rewards(block.models, block.prompts, drawn.tokens, drawn.lengths)
    found = []
    columns = (drawn.tokens, drawn.lengths, drawn.ledger.tokens, drawn.ledger.context)
    for tokens, lengths, count, context, values in zip(*(column.tolist() for column in columns), rewards, strict=True):
        samples = [(row[:length], value) for row, length, value in zip(tokens, lengths, values, strict=True)]
        found.append(_Sampled(samples, {"tokens": int(count), "context": int(context)}))
    return found


def _rewards(
    models: SearchModels, prompts: Sequence[SearchPrompt], tokens: torch.Tensor, lengths: torch.Tensor
) -> list[list[float]]:
    """R of whole responses [B, R, T] of lengths [B, R]."""
    verdicts = Verdicts(models.guard, models.formats, [prompt.guard_ids for prompt in prompts])
    alive = torch.ones_like(lengths, dtype=torch.bool)
    return verdicts.read(torch.full_like(lengths, ROOT), tokens, lengths=lengths, alive=alive)[1].tolist()


def _samples_entry(inputs: Inputs, prompt: SearchPrompt, sampled: _Sampled, limit: int) -> dict[str, Any]:
    nodes: list[tuple[int, int]] = []
    known: dict[tuple[int, int], int] = {}
    reward: dict[int, float] = {}
    for tokens, value in sampled.samples:
        node = ROOT
        for token in tokens:
            if (node, token) not in known:
                known[node, token] = len(nodes)
                nodes.append((node, token))
            node = known[node, token]
        reward[node] = value
    return _entry(inputs, prompt, "best_of_n", nodes, reward, sampled.best, sampled.read, limit)


def _entry(
    inputs: Inputs,
    prompt: SearchPrompt,
    method: str,
    nodes: list[tuple[int, int]],
    reward: dict[int, float],
    output: list[int],
    read: dict[str, int],
    limit: int,
) -> dict[str, Any]:
    length: list[int] = []  # new tokens up to each node
    for parent, _ in nodes:
        length.append(1 + (length[parent] if parent != ROOT else 0))
    eos = inputs.formats.eos_id
    return {
        "prompt_id": prompt.prompt_id,
        "method": method,
        "budget": inputs.job.budgets[0],
        "prompt_tokens": len(prompt.policy_ids),
        "nodes": {
            "parent": [parent for parent, _ in nodes],
            "token": [token for _, token in nodes],
            "text": [_text(inputs, token) for _, token in nodes],
            "reward": [reward.get(node) for node in range(len(nodes))],
        },
        "ends": [node for node, (_, token) in enumerate(nodes) if token == eos or length[node] == limit],
        "engine": read,
        "output": _find(nodes, output),
    }


def _find(nodes: list[tuple[int, int]], tokens: list[int]) -> int:
    """The node that ends the path ``tokens``."""
    known = {pair: index for index, pair in enumerate(nodes)}
    node = ROOT
    for token in tokens:
        node = known[node, token]
    return node


def _text(inputs: Inputs, token: int) -> str:
    """A token as drawn, special tokens by name."""
    return inputs.tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _path(nodes: list[tuple[int, int]], node: int) -> list[int]:
    """Tokens from the prompt to the node."""
    tokens: list[int] = []
    while node != ROOT:
        node, token = nodes[node]
        tokens.append(token)
    return tokens[::-1]


def shown_step(tree: SearchTree) -> tuple[int, TreeStep, int]:
    """The step that Figure 1 shows: its index, itself and the beam sequence it goes on from.

    The figure is to show what a step keeps and what it drops. So a sequence with children of both kinds comes first, then
    the one with the most candidates, then the earliest; steps before :data:`FIRST_STEP` only if there are no later ones.
    """
    choices = [(index, step, node) for index, step in enumerate(tree.steps) for node in step.beam]
    later = [choice for choice in choices if choice[0] >= FIRST_STEP]

    def worth(choice: tuple[int, TreeStep, int]) -> tuple[bool, int]:
        children = _children(choice[1], choice[2])
        return len({child.node is None for child in children}) == 2, len(children)

    return max(later or choices, key=worth)


def _step_entry(inputs: Inputs, prompt: SearchPrompt, tree: SearchTree) -> dict[str, Any]:
    """The step that Figure 1 shows, scored both ways."""
    index, step, node = shown_step(tree)
    children, prefix = _children(step, node), _path(tree.nodes, node)
    models = inputs.models
    tokens = torch.tensor([[[*prefix, child.token] for child in children]], device=inputs.device)
    lengths = torch.full(tokens.shape[:2], len(prefix) + 1, device=inputs.device)
    (verdicts,) = _rewards(models, [prompt], tokens, lengths)
    mask = unseen_tokens(models, inputs.settings)
    assert models.mrm is not None and models.guard is not None and mask is not None
    unseen = mask.tolist()
    mrm, guard = ModelShape.from_config(models.mrm.config), ModelShape.from_config(models.guard.config)
    read, suffix = len(prompt.guard_ids) + len(prefix), len(models.formats.guard.suffix)
    candidates = [
        {
            "token": child.token,
            "text": _text(inputs, child.token),
            "probability": child.probability,
            "mrm_reward": child.reward,
            "prm_reward": verdict,
            "seen": not unseen[child.token],
            "kept": child.node is not None,
        }
        for child, verdict in zip(children, verdicts, strict=True)
    ]
    return {
        "prompt_id": prompt.prompt_id,
        "step": index,
        "prefix_text": [_text(inputs, token) for token in prefix],
        "candidates": candidates,
        "mrm_calls": 1,
        "prm_calls": len(candidates),
        "mrm_flops": float(mrm.chain(len(prompt.mrm_ids) + len(prefix) - 1, 1)),
        "prm_flops": float(len(candidates) * guard.chain(read, 1 + suffix)),
    }


def _children(step: TreeStep, node: int) -> list[TreeCandidate]:
    return [candidate for candidate in step.candidates if candidate.parent == node]
