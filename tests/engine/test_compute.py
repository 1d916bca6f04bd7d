"""Compute against the published counts, and the engine's own count of what ran against torch's."""

from __future__ import annotations

from pathlib import Path

import placed
import pytest
import torch
from analytic import nominal_best_of_n, nominal_saffron
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from saffron.engine.compute import ModelShape
from saffron.engine.trie import ROOT, TokenTrie

POLICY = ModelShape(hidden_size=4096, intermediate_size=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocab_size=128256)
GUARD = ModelShape(hidden_size=2048, intermediate_size=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab_size=128256)
PROMPT = 21 + 10 + 10  # prompt, template, prefill
PAGE = (Path(__file__).parents[2] / "docs/paper.md").read_text("utf-8")


def row(name: str) -> list[str]:
    """Cells of the one row of docs/paper.md that starts with this name."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def published(name: str) -> dict[int, float]:
    """TFLOP per prompt by budget."""
    return {int(budget): float(tflop) for budget, tflop in zip(row("budget N"), row(name), strict=True)}


BEST_OF_N, SAFFRON = published("Best-of-N, once"), published("Saffron-1, once")


def test_cost_of_one_token_of_the_papers_models():
    assert POLICY.flops_per_token == pytest.approx(15.009e9, rel=1e-4)
    assert POLICY.flops_per_context_token == pytest.approx(0.524e6, rel=1e-3)
    assert GUARD.flops_per_token == pytest.approx(2.4715e9, rel=1e-4)
    assert GUARD.flops_per_context_token == pytest.approx(0.131e6, rel=1e-3)


@pytest.mark.parametrize("n", BEST_OF_N)
def test_best_of_n_row(n: int):
    total = sum(
        nominal_best_of_n(POLICY, GUARD, n=n, new_tokens=32, policy_prompt=PROMPT, guard_prompt=138 + 21 + 3, guard_suffix=56)
    )
    assert total / 1e12 == pytest.approx(BEST_OF_N[n], rel=0.01)


@pytest.mark.parametrize("n", SAFFRON)
def test_saffron_row(n: int):
    total = sum(nominal_saffron(POLICY, GUARD, width=n, new_tokens=32, policy_prompt=PROMPT, mrm_prompt=4 + 21 + 3))
    assert total / 1e12 == pytest.approx(SAFFRON[n], rel=0.01)


def test_shape_from_a_config_counts_the_models_own_weights():
    model = small_model()
    shape = ModelShape.from_config(model.config)
    weights = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert shape.linear_weights == weights
    assert shape.kv_bytes_per_token(4) == 2 * 3 * 2 * 8 * 4


def test_executed_flops_are_what_torch_counts():
    model = small_model().to(placed.DEVICE)
    with FlopCounterMode(display=False) as counter:
        trie = TokenTrie(model, [[1, 2, 3, 4], [5, 6]])
        first = trie.extend(placed.full((2, 3), ROOT), placed.tensor([[1, 2, 3], [4, 5, 6]]))
        trie.branch(first.nodes, placed.ones(2, 3, 5, dtype=torch.long), commit=2, select=placed.tensor([3, 4]))
        trie.branch(first.nodes, placed.ones(2, 3, 4, dtype=torch.long), lengths=placed.tensor([[1, 2, 4]] * 2))
        kept = trie.compact(first.nodes[:, :2])
        trie.drop_prompts(placed.tensor([1]))
        trie.extend(kept[1:], placed.tensor([[7, 8]]), alive=placed.tensor([[True, False]]))
        rows = TokenTrie(model, [[1, 2, 3]], layout="rows", logits=False)
        nodes = rows.extend(placed.full((1, 4), ROOT), placed.tensor([[1, 2, 3, 4]])).nodes
        rows.extend(nodes, placed.tensor([[1, 2, 3, 4]]), select=placed.tensor([0]))
    rotations = sum(counter.get_flop_counts().get(type(model.model.rotary_emb).__name__, {}).values())  # a product in some
    assert counter.get_total_flops() - rotations == int(trie.ledger.executed.sum() + rows.ledger.executed.sum())


def test_nominal_flops_count_unique_tokens_once():
    model = small_model()
    shape = ModelShape.from_config(model.config)
    trie = TokenTrie(model, [[1, 2, 3]])
    first = trie.extend(torch.full((1, 3), ROOT), torch.tensor([[1, 1, 2]]))  # two rows spell the same path
    trie.extend(first.nodes, torch.tensor([[5, 5, 5]]), alive=torch.tensor([[True, True, False]]))
    trie.branch(first.nodes[:, 1:], torch.tensor([[[7, 8], [7, 9]]]))
    trie.branch(first.nodes[:, :2], torch.tensor([[[6, 8, 1], [6, 9, 1]]]), lengths=torch.tensor([[2, 2]]))
    tokens = 3 + 2 + 1 + 4 + 3
    context = (1 + 2 + 3) + 2 * 4 + 5 + 2 * (5 + 6) + (5 + 6 + 6)
    assert trie.ledger.tokens.tolist() == [tokens]
    assert trie.ledger.context.tolist() == [context]
    assert trie.ledger.nominal.tolist() == [tokens * shape.flops_per_token + context * shape.flops_per_context_token]


def test_both_layouts_have_the_same_nominal_flops():
    model = small_model()
    ledgers = []
    for layout in ("packed", "rows"):
        trie = TokenTrie(model, [[1, 2, 3], [4]], layout=layout)
        nodes = trie.extend(torch.full((2, 4), ROOT), torch.tensor([[1, 1, 2, 1], [3, 3, 3, 3]])).nodes
        trie.extend(nodes, torch.tensor([[1, 2, 1, 1], [1, 2, 3, 4]]))
        ledgers.append(trie.ledger)
    assert torch.equal(ledgers[0].nominal, ledgers[1].nominal)
    assert ledgers[0].tokens.tolist() == [3 + 2 + 3, 1 + 1 + 4]


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=29,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
    )
    return LlamaForCausalLM(config).eval()
