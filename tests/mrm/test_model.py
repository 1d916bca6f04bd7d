from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from tests.mrm.examples import FORMATS, SEEN, VOCABULARY, labels, tiny_guard

from saffron.mrm.model import MultifurcationRewardModel, prepare_head, squared_error
from saffron.mrm.targets import Targets, collate


def model(
    dtype: torch.dtype = torch.float64, bias: str = "trained", seed: int = 1, modules: Sequence[str] = ("q_proj", "v_proj")
) -> MultifurcationRewardModel:
    return MultifurcationRewardModel(tiny_guard(dtype), rank=4, alpha=4.0, modules=modules, bias=bias, seed=seed)


def perturb(mrm: MultifurcationRewardModel) -> None:
    """Move everything that is trained away from its start, LoRA's zeros included."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in mrm.trainable().values():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_only_lora_on_the_named_layers_and_the_bias_are_trained():
    names = set(model().trainable())
    assert "bias" in names
    lora = names - {"bias"}
    assert len(lora) == 2 * 2 * 2  # layers, modules, A and B
    assert all(".self_attn.q_proj.lora_" in name or ".self_attn.v_proj.lora_" in name for name in lora)
    wider = set(model(modules=["q_proj", "down_proj"]).trainable()) - {"bias"}
    assert len(wider) == 2 * 2 * 2 and all("q_proj.lora_" in name or "mlp.down_proj.lora_" in name for name in wider)
    assert "bias" not in set(model(bias="frozen_random").trainable()) | set(model(bias="absent").trainable())


def test_predictions_are_the_logits_of_the_observed_tokens():
    mrm = model()
    perturb(mrm)
    targets = Targets(labels(6), FORMATS, "packed")
    batch = collate([targets.row(index) for index in range(len(targets))])
    predicted = mrm(batch).detach()
    start = 0
    for index in range(len(targets)):
        row = targets.row(index)
        for i, token in enumerate(row.tokens):
            prefix = row.input_ids[: len(row.input_ids) - len(row.tokens) + 1 + i]
            logits = mrm.adapted(input_ids=torch.as_tensor(prefix)[None]).logits[0, -1] + mrm.bias
            assert abs(float(predicted[start] - logits[token].detach())) < 1e-10
            start += 1
    assert start == len(predicted)


def test_packed_and_paper_order_give_the_same_loss_and_gradient_on_the_same_prefixes():
    mrm = model()
    perturb(mrm)
    results = {}
    for order, many in (("packed", 3), ("paper", 4)):
        targets = Targets(labels(9), FORMATS, order)
        mrm.zero_grad()
        total = 0.0
        for start in range(0, len(targets), many):
            batch = collate([targets.row(index) for index in range(start, min(start + many, len(targets)))])
            loss = squared_error(mrm(batch), batch, targets.total)
            loss.backward()
            total += float(loss.detach())
        results[order] = (total, {name: parameter.grad.clone() for name, parameter in mrm.trainable().items()})
    assert results["packed"][0] == pytest.approx(results["paper"][0], rel=1e-12)
    assert results["packed"][0] > 0.1
    for name, gradient in results["packed"][1].items():  # the stock norm layer computes in float32 whatever the dtype
        assert torch.allclose(gradient, results["paper"][1][name], rtol=1e-4, atol=1e-6), name


def test_an_unseen_token_has_a_bias_gradient_of_exactly_zero_and_keeps_its_bias():
    """Proposition 1."""
    mrm = model(torch.float32)
    with torch.no_grad():
        mrm.bias.copy_(torch.linspace(-1, 1, VOCABULARY))
    initial = mrm.bias.detach().clone()
    targets = Targets(labels(), FORMATS, "packed")
    optimizer = torch.optim.AdamW(mrm.trainable().values(), lr=0.01, weight_decay=0.0)
    seen = torch.zeros(VOCABULARY, dtype=torch.bool)
    for start in range(0, len(targets), 4):
        batch = collate([targets.row(index) for index in range(start, min(start + 4, len(targets)))])
        seen[batch.tokens] = True
        optimizer.zero_grad()
        squared_error(mrm(batch), batch, len(batch.tokens)).backward()
        assert torch.all(mrm.bias.grad[~seen] == 0)
        optimizer.step()
    assert set(torch.nonzero(seen).flatten().tolist()) <= set(SEEN)
    assert torch.equal(mrm.bias[~seen], initial[~seen])
    assert torch.all(mrm.bias[seen] != initial[seen])


@pytest.mark.parametrize("bias", ["trained", "frozen_random", "absent"])
def test_initial_bias(bias):
    values = model(torch.float32, bias).bias.detach()
    if bias == "frozen_random":
        bound = 1 / 16**0.5
        assert values.abs().max() <= bound
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.3)
    else:
        assert torch.all(values == 0)


def test_initialisation_follows_its_seed_and_leaves_the_global_generator_alone():
    guard = tiny_guard()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one = MultifurcationRewardModel(guard, rank=4, alpha=4.0, modules=["q_proj", "v_proj"], bias="frozen_random", seed=1)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(99)
    again, other = model(torch.float32, seed=1), model(torch.float32, seed=2)
    name = next(name for name in one.trainable() if "lora_A" in name)
    assert torch.equal(one.trainable()[name], again.trainable()[name])
    assert not torch.equal(one.trainable()[name], other.trainable()[name])


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_may_start_scaled_and_its_verdict_rows_centred(tied):
    plain, changed = tiny_guard(torch.float64, tied=tied), tiny_guard(torch.float64, tied=tied)
    safe, unsafe = FORMATS.safe_id, FORMATS.unsafe_id
    prepare_head(changed, 0.25, (safe, unsafe))
    ids = torch.tensor([[12, 13, 14]])
    before, after = plain(ids).logits[0, -1], changed(ids).logits[0, -1]
    others = [token for token in range(VOCABULARY) if token not in (safe, unsafe)]
    torch.testing.assert_close(after[others], 0.25 * before[others])
    reward = before[safe] - before[unsafe]
    torch.testing.assert_close(after[[safe, unsafe]], 0.125 * torch.stack([reward, -reward]))
    assert torch.equal(changed.get_input_embeddings().weight, plain.get_input_embeddings().weight)


def test_a_head_that_is_left_alone_stays_tied():
    guard = tiny_guard(tied=True)
    prepare_head(guard, 1.0)
    assert guard.get_output_embeddings().weight is guard.get_input_embeddings().weight
    assert guard.config.tie_word_embeddings
