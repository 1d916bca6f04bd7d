"""A model that is whole but cannot be right is refused; one that is odd is named with numbers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from replica import models as replica_models
from replica import other_family
from transformers import LlamaForCausalLM

from saffron.chat import ChatFormats
from saffron.engine import forward
from saffron.models import ModelError, formats, require_finite, sense

HERE = Path("data/x/models/seed0/guard")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return other_family.build_tokenizer()


@pytest.fixture(scope="module")
def spoken(tokenizer: Any) -> ChatFormats:
    from saffron.config import ChatTexts

    return formats.of_texts(ChatTexts.model_validate(other_family.CHAT_FORMATS), tokenizer, tokenizer)


def model(tokenizer: Any, seed: int = 0) -> LlamaForCausalLM:
    return replica_models.random_model(seed, tied=False, vocabulary=len(tokenizer)).requires_grad_(False)


class Shifted(LlamaForCausalLM):
    """A model whose own forward does what the engine, which drives its layers, cannot know."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        found = super().forward(*arguments, **named)
        found.logits[..., 300:] += 50
        return found


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_models_that_the_engine_drives_pass(tokenizer: Any, spoken: ChatFormats, dtype: torch.dtype) -> None:
    for check in (sense.check_guard, sense.check_policy):
        check(model(tokenizer).to(dtype), spoken, tokenizer, HERE)


def test_swapped_verdict_words_are_named_with_numbers(
    tokenizer: Any, spoken: ChatFormats, caplog: pytest.LogCaptureFixture
) -> None:
    guard = model(tokenizer)
    guard.lm_head.weight.zero_()
    guard.lm_head.weight[spoken.safe_id] = guard.model.norm.weight / 4
    sense.check_guard(guard, spoken, tokenizer, HERE)
    swapped = replace(spoken, safe_id=spoken.unsafe_id, unsafe_id=spoken.safe_id)
    first = said(caplog)
    caplog.clear()
    sense.check_guard(guard, swapped, tokenizer, HERE)
    second = said(caplog)
    unsafe = [[line for line in lines if "for unsafe" in line] for lines in (first, second)]
    assert sorted(map(len, unsafe)) == [0, 1]  # a random guard leans to one side
    (line,) = unsafe[0] + unsafe[1]
    assert line.startswith(f"{HERE} takes ") and "R of harmless ones -" in line and "verdict words the other way round" in line


def test_verdicts_that_are_not_read_where_they_come_are_named(
    tokenizer: Any, spoken: ChatFormats, caplog: pytest.LogCaptureFixture
) -> None:
    guard = model(tokenizer)
    sense.check_guard(guard, spoken, tokenizer, HERE)  # of a random model any token may come
    assert any("gives both verdicts together a probability of" in line for line in said(caplog))
    caplog.clear()
    guard.lm_head.weight.zero_()
    final = guard.model.norm.weight
    guard.lm_head.weight[spoken.safe_id], guard.lm_head.weight[spoken.unsafe_id] = 30 * final, -30 * final
    sense.check_guard(guard, spoken, tokenizer, HERE)
    assert not any("probability" in line for line in said(caplog))


def test_a_guard_that_says_the_same_of_everything_is_refused(tokenizer: Any, spoken: ChatFormats) -> None:
    guard = model(tokenizer)
    guard.lm_head.weight[spoken.unsafe_id] = guard.lm_head.weight[spoken.safe_id]
    with pytest.raises(ModelError, match=rf"^{HERE}: the reward of all 8 built-in exchanges is 0, whatever the text"):
        sense.check_guard(guard, spoken, tokenizer, HERE)


def test_a_model_that_overflows_is_refused(tokenizer: Any, spoken: ChatFormats) -> None:
    broken = model(tokenizer)
    broken.model.layers[0].mlp.up_proj.weight[0, 0] = torch.inf
    with pytest.raises(ModelError, match=rf"^{HERE}: the reward of the built-in exchange 'How do I .*' is nan; its weights are"):
        sense.check_guard(broken, spoken, tokenizer, HERE)
    with pytest.raises(
        ModelError, match=rf"^{HERE}: logits of a short prompt are not finite at token 0; .* runtime\.dtype float32"
    ):
        sense.check_policy(broken, spoken, tokenizer, HERE)


def test_a_model_whose_forward_the_engine_does_not_know_is_refused(
    tokenizer: Any, spoken: ChatFormats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its class where that tells; else by what comes out."""
    plain = model(tokenizer)
    shifted = Shifted(plain.config).eval()
    shifted.load_state_dict(plain.state_dict())
    assert min(spoken.safe_id, spoken.unsafe_id) >= 300
    with pytest.raises(forward.TrieError, match="the model has a forward hook or a forward of its own"):
        sense.check_guard(shifted, spoken, tokenizer, HERE)
    monkeypatch.setattr(Shifted.forward, "__module__", "transformers.models.llama.modeling_llama")
    with pytest.raises(ModelError, match=r"a verdict's logit that lies 50\S* from the model's own .* it cannot drive this model"):
        sense.check_guard(shifted, spoken, tokenizer, HERE)
    with pytest.raises(ModelError, match=r"at token 1 its choice lies \S+ below the model's .* it cannot drive this model"):
        sense.check_policy(shifted, spoken, tokenizer, HERE)


def test_a_tie_is_no_difference(tokenizer: Any, spoken: ChatFormats, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = model(tokenizer)
    policy.lm_head.weight.zero_()
    monkeypatch.setattr(sense, "_generate", lambda *_: [5] * sense.NEW_TOKENS)
    sense.check_policy(policy, spoken, tokenizer, HERE)


def test_penalties_of_a_checkpoint_do_not_count(tokenizer: Any, spoken: ChatFormats) -> None:
    policy = model(tokenizer)
    policy.generation_config.repetition_penalty = 5.0
    sense.check_policy(policy, spoken, tokenizer, HERE)


def test_rewards_that_are_not_finite_are_named() -> None:
    require_finite([1.0, -2.0], "conversation 3", HERE)
    with pytest.raises(ModelError, match=rf"^{HERE}: the reward of conversation 3 at response token 1 is inf; its weights"):
        require_finite([1.0, float("inf"), float("nan")], "conversation 3", HERE, each="response token")
