"""Recorded steps give what steps give, and are recorded anew exactly when their memory has moved."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import placed
import pytest
import torch
from engine.test_trie import VOCAB, model
from methods import test_saffron as beams
from torch import Tensor

from saffron.engine import trie as tries
from saffron.engine.replay import Replays, recorder
from saffron.engine.trie import ROOT, TokenTrie
from saffron.methods import frontier
from saffron.methods.saffron import algorithm


class Calls:
    """In a graph's place: calls the step that was recorded on its inputs again. What it has taken as numbers stays as it was."""

    made: ClassVar[list[Calls]] = []

    def __init__(self, step: Callable[..., Tensor], inputs: Sequence[Tensor], before: Any) -> None:
        self.step, self.inputs, self.replays = step, inputs, 0
        Calls.made.append(self)

    def __call__(self) -> Tensor:
        self.replays += 1
        return self.step(*self.inputs)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Calls]:
    monkeypatch.setattr(Calls, "made", [])
    monkeypatch.setattr(tries, "recorder", lambda device: Calls)
    return Calls.made


def grow(trie: TokenTrie, nodes: Tensor, rng: random.Random, steps: int) -> tuple[Tensor, list[Tensor]]:
    logits = []
    for _ in range(steps):
        shape = (trie.batch, nodes.shape[1])
        parents = nodes.gather(1, placed.tensor([[rng.randrange(shape[1]) for _ in range(shape[1])] for _ in range(shape[0])]))
        tokens = placed.tensor([[rng.randrange(VOCAB) for _ in range(shape[1])] for _ in range(shape[0])])
        extension = trie.extend(parents, tokens)
        nodes = extension.nodes
        logits.append(extension.logits)
    return nodes, logits


def test_replayed_steps_give_the_logits_of_steps_until_storage_moves(calls):
    prompts = [[1, 2, 3], [4], [5, 6]]
    recorded = TokenTrie(model(), prompts, room=60, fixed_shapes=True, step=60)
    plain = TokenTrie(model(), prompts, room=30)
    ours = theirs = placed.full((3, 3), ROOT)
    seen: list[int] = []
    for turn, kept in enumerate(([0, 1, 2], [0, 1, 2], [0, 2], [1])):
        ours, found = grow(recorded, ours, random.Random(turn), 5)
        theirs, expected = grow(plain, theirs, random.Random(turn), 5)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
        seen.append(len(calls))
        ours, theirs = recorded.compact(ours, room=15 if turn < 1 else 60), plain.compact(theirs, room=15)
        if len(kept) < recorded.batch:
            for trie in (recorded, plain):
                trie.drop_prompts(placed.tensor(kept))
            ours, theirs = ours[kept], theirs[kept]
    # In place after the first compaction; other storage after the second and, with fewer prompts, after the third and the last.
    assert seen == [1, 1, 2, 3]
    assert [call.replays for call in calls] == [9, 5, 5]  # the very first step runs as it is
    assert recorded.ledger.nominal.tolist() == plain.ledger.nominal.tolist()


def test_an_output_stays_what_it_was_when_the_next_is_computed(calls):
    trie = TokenTrie(model(), [[1, 2]], room=12, fixed_shapes=True)
    nodes, logits = grow(trie, placed.full((1, 2), ROOT), random.Random(0), 3)
    before = logits[-1].clone()
    grow(trie, nodes, random.Random(1), 2)
    assert torch.equal(logits[-1], before)


def test_other_shapes_are_recorded_anew_and_selected_logits_not_at_all(calls):
    trie = TokenTrie(model(), [[1, 2]], room=24, fixed_shapes=True)
    nodes, _ = grow(trie, placed.full((1, 2), ROOT), random.Random(0), 3)
    assert len(calls) == 1 and calls[0].replays == 2
    trie.extend(nodes, placed.tensor([[1, 2]]), select=placed.tensor([3, 4]))
    assert len(calls) == 1 and calls[0].replays == 2
    grow(trie, nodes[:, :1], random.Random(1), 1)
    assert len(calls) == 2 and calls[0].replays == 2 and calls[1].replays == 1


def test_what_a_step_writes_and_returns_is_that_of_its_own_inputs():
    total = torch.zeros(2)
    replays = Replays(Calls)

    def step(x: Tensor) -> Tensor:
        total.add_(x)
        return 2 * x

    given = [torch.tensor([float(i), 1.0]) for i in range(4)]
    assert [replays(step, (x,), "same").tolist() for x in given] == [(2 * x).tolist() for x in given]
    assert total.tolist() == [6.0, 4.0]


@pytest.mark.skipif(placed.DEVICE.type != "cuda", reason="SAFFRON_TEST_DEVICE=cuda: CUDA graphs need a GPU")
def test_cuda_graphs_give_what_steps_give():
    prompts = [[1, 2, 3], [4], [5, 6]]
    for dtype, atol in ((torch.float64, 1e-10), (torch.bfloat16, 0.1)):
        ours = theirs = placed.full((3, 3), ROOT)
        recorded = TokenTrie(model(dtype=dtype), prompts, room=60, fixed_shapes=True, step=60)
        plain = TokenTrie(model(dtype=dtype), prompts, room=30)
        assert recorded._replays is not None and plain._replays is None
        for turn in range(4):
            ours, found = grow(recorded, ours, random.Random(turn), 5)
            theirs, expected = grow(plain, theirs, random.Random(turn), 5)
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=atol)
            ours, theirs = recorded.compact(ours, room=15), plain.compact(theirs, room=15)


def test_steps_are_recorded_on_a_gpu_alone():
    assert recorder(torch.device("cpu")) is None
    assert recorder(torch.device("cuda")) is not None


@pytest.mark.parametrize("semantics", ["paper", "released"])
def test_a_search_of_recorded_steps_finds_what_the_reference_finds(semantics, calls, monkeypatch):
    for module in (frontier, algorithm):
        monkeypatch.setattr(module, "at_hand", lambda device: False)
    policy, mrm = beams.model(21, scale=3.0), beams.model(22)
    policy.lm_head.weight[beams.EOS] *= 2
    prompts = [[1], [2, 3, 4, 5, 6, 7], [8, 9], [10, 11, 12]]
    given = beams.options(semantics=semantics, width=3, max_new_tokens=14, min_new_tokens=1)
    outputs = beams.search_tokens(policy, mrm, prompts, **given)
    assert outputs == [each.tokens for each in beams.expected(policy, mrm, prompts, **given)]
    assert sum(call.replays for call in calls) > 10
