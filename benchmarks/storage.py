"""Key and value storage of every method as a multiple of what its tree holds, where prompts or beams make that unfavourable.

A multiple is the trie's peak storage over (unique nodes x bytes of one node), each model on its own. Both are numbers of
nodes times the bytes of one, so that it depends on widths, lengths and what the policy chooses, and on no size of the models
but their layers and heads: storage that grows holds the keys or values of one layer twice, a compaction those of one head.
So the models here are small, and of as many layers as those that the targets are stated for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch

from benchmarks.methods import KEY, RUNS, as_on_gpu, formats, search, settings_of
from benchmarks.search import NEW_TOKENS, PROMPT_TOKENS
from benchmarks.shapes import SHAPES, TARGETS, Pair, Shapes, pair, peaked, prompts
from saffron.engine import trie
from saffron.engine.compute import Ledger
from saffron.methods import discovery
from saffron.methods.base import Block, SearchModels, SearchPrompt

#: Factor on the unembedding from which a nucleus is a single token.
ONE_TOKEN = 1e4
EQUAL, UNEQUAL = (PROMPT_TOKENS,) * 2, (1, 1, 1, 100)
PREFIX, SUFFIX = 8, 8


@dataclass(frozen=True)
class Case:
    """One search.

    Attributes:
        run: an entry of :data:`benchmarks.methods.RUNS`.
        budget: N.
        lengths: tokens of each prompt.
        policy: how sharp the policy is.
        host: ``cpu``: sees in every step how many rows there are; ``gpu``: only at compactions.
    """

    run: str
    budget: int
    lengths: tuple[int, ...]
    policy: str = "peaked"
    host: str = "cpu"


CASES = tuple(
    case
    for host in ("cpu", "gpu")
    for case in (
        *(Case(run, 16, lengths, host=host) for lengths in (EQUAL, UNEQUAL) for run in RUNS),
        Case("rebase", 8, (PROMPT_TOKENS,), host=host),
        *(Case("saffron", budget, (PROMPT_TOKENS,), host=host) for budget in (1, 4, 32)),
        Case("saffron", 16, (PROMPT_TOKENS,) * 16, host=host),
        *(Case("saffron", budget, (PROMPT_TOKENS,), "one-token nuclei", host) for budget in (4, 32, 64)),
    )
)


def measure(device: str, cases: Sequence[Case] = CASES) -> list[dict[str, Any]]:
    """One record per case."""
    models = pair(shapes(), device)
    sharpness = {"peaked": SHAPES["tiny"].sharpness, "one-token nuclei": ONE_TOKEN}
    return [_row(peaked(models, sharpness[case.policy]), case) for case in cases]


def shapes() -> Shapes:
    """Small models of as many layers as the targets' models."""
    tiny, full = SHAPES["tiny"], SHAPES[TARGETS]
    policy, guard = replace(tiny.policy, layers=full.policy.layers), replace(tiny.guard, layers=full.guard.layers)
    return replace(tiny, policy=policy, guard=guard, dtype=torch.float32)


def _row(models: Pair, case: Case) -> dict[str, Any]:
    chat = formats(PREFIX, SUFFIX)
    searched = SearchModels(policy=models.policy, guard=models.mrm, formats=chat, mrm=models.mrm)
    given = prompts_of(case, models.policy.config.vocab_size)
    with noted() as ledgers, as_on_gpu() if case.host == "gpu" else nullcontext():
        results = search(case.run, Block(searched, given, KEY, NEW_TOKENS), case.budget)
    policies = [ledger for ledger in ledgers if ledger.shape.layers == models.policy.config.num_hidden_layers]
    [reward] = [ledger for ledger in ledgers if ledger not in policies]
    policy = max(policies, key=lambda ledger: ledger.peak_kv_bytes)  # samples drawn in rounds have a trie each, one at a time
    # A verdict's suffix is read and dropped: no node of the guard's trie.
    guard = "guard" in discovery.method(RUNS[case.run][0]).reads(settings_of(case.run))
    dropped = SUFFIX * sum(result.reward_calls for result in results) if guard else 0
    value = models.policy.dtype.itemsize
    return {
        "run": case.run,
        "budget": case.budget,
        "prompt_tokens": list(case.lengths),
        "policy": case.policy,
        "host": case.host,
        "new_tokens": NEW_TOKENS,
        "tries": {
            "policy": _multiple(policy, float(policy.tokens.sum()), value),
            "reward": _multiple(reward, float(reward.tokens.sum()) - dropped, value),
        },
    }


def prompts_of(case: Case, vocabulary: int) -> list[SearchPrompt]:
    """The prompts of a case; every model reads the same tokens, without a format around them, so that the lengths are those."""
    rows = prompts(len(case.lengths), max(case.lengths), vocabulary)
    ids = [row[:length] for row, length in zip(rows, case.lengths, strict=True)]
    return [SearchPrompt(number, tokens, tokens, tokens) for number, tokens in enumerate(ids)]


def _multiple(ledger: Ledger, nodes: float, value: int) -> dict[str, float]:
    return {"nodes": nodes, "multiple": ledger.peak_kv_bytes / (nodes * ledger.shape.kv_bytes_per_token(value))}


@contextmanager
def noted() -> Iterator[list[Ledger]]:
    """The ledgers of all tries made within, in the order they are made."""
    found: list[Ledger] = []

    def made(*given: Any, **named: Any) -> Ledger:
        found.append(Ledger(*given, **named))
        return found[-1]

    with mock.patch.object(trie, "Ledger", made):
        yield found
