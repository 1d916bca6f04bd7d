"""One prompt batch of every search method, by the pipeline's own code path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from benchmarks.measure import memory, paired
from benchmarks.search import NEW_TOKENS, ids_of
from benchmarks.shapes import EOS, Pair
from saffron.chat import ChatFormat, ChatFormats
from saffron.methods import discovery, frontier
from saffron.methods.base import Block, Result, SearchModels, SearchPrompt
from saffron.methods.random import RandomKey
from saffron.methods.saffron import algorithm

#: What is run: the method and what differs from its default settings.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    name: (name, {}) for name, method in discovery.methods().items() if method.budget is not None
} | {"saffron, scorer prm": ("saffron", {"scorer": "prm"})}
KEY = RandomKey("benchmark", 0)


def formats(prefix: int, suffix: int) -> ChatFormats:
    """Chat formats of arbitrary ids: a guard's of these lengths, and the paper's lengths of policy and MRM."""
    return ChatFormats(
        policy=ChatFormat((3,) * 5, (4,) * 5, ()),
        guard=ChatFormat(tuple(range(3, 3 + prefix)), (5,) * 3, tuple(range(9, 9 + suffix))),
        mrm=ChatFormat((6,) * 4, (5,) * 3, ()),
        safe_id=7,
        unsafe_id=8,
        eos_id=EOS,
    )


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Searches within read nothing for being at hand: they select on the device, and hold and read what they would on a GPU."""
    with mock.patch.object(frontier, "at_hand", _not_at_hand), mock.patch.object(algorithm, "at_hand", _not_at_hand):
        yield


def _not_at_hand(device: torch.device) -> bool:
    return False


def compare(models: Pair, chat: ChatFormats, name: str, budget: int, count: int, turns: int) -> dict[str, Any]:
    """One entry of :data:`RUNS`: seconds, tokens of the answers per second, executed FLOP per second, memory."""
    results: list[Result] = []

    def run() -> None:
        results[:] = search(name, Block(searched(models, chat), prompts_of(models, chat, count), KEY, NEW_TOKENS), budget)

    timings = paired({name: run}, turns, device=models.device)
    timing = timings[name]
    row = {"run": name, "budget": budget, "prompts": count, "seconds": timing.as_dict()} | memory(timings)
    if not timing.seconds:
        return row
    seconds = sorted(timing.seconds)[len(timing.seconds) // 2]
    executed = sum(result.flops_executed_policy + result.flops_executed_reward for result in results)
    return row | {
        "tokens_per_second": sum(len(result.output_ids) for result in results) / seconds,
        "executed_flops_per_second": executed / seconds,
        "reward_calls": sum(result.reward_calls for result in results),
    }


def settings_of(name: str) -> Any:
    """Settings of one entry of :data:`RUNS`."""
    method, changes = RUNS[name]
    return discovery.method(method).settings().model_copy(update=changes)


def search(name: str, block: Block, budget: int) -> list[Result]:
    """One entry of :data:`RUNS` at one budget."""
    return discovery.search(RUNS[name][0])(block, settings_of(name), [budget])


def searched(models: Pair, chat: ChatFormats) -> SearchModels:
    """The models as a method takes them."""
    return SearchModels(policy=models.policy, guard=models.mrm, formats=chat, mrm=models.mrm)


def prompts_of(models: Pair, chat: ChatFormats, count: int) -> list[SearchPrompt]:
    """Prompts in every model's format."""
    parts = (chat.policy, chat.guard, chat.mrm)
    return [SearchPrompt(i, *(part.prompt(ids) for part in parts)) for i, ids in enumerate(ids_of(models, count))]
