"""One training loop for every model but the MRM: AdamW, warm-up and cosine decay, batches of similar length, all seeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from saffron.config import Architecture, Optimisation

Example = TypeVar("Example")

#: Label of a position that is not learnt.
IGNORED = -100
_WARM_UP = 0.05
_BUCKET = 16  # batches whose examples are sorted by length together


def new_model(architecture: Architecture, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A freshly initialised Llama with tied embeddings, in float32."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.kv_heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config)


def batches(examples: Sequence[Example], lengths: Sequence[int], size: int, random: Random) -> Iterator[list[Example]]:
    """Endless batches of similar length, in an order drawn from ``random``; every pass covers every example once."""
    size = min(size, len(examples))
    while True:
        order = list(range(len(examples)))
        random.shuffle(order)
        for start in range(0, len(order), size * _BUCKET):
            bucket = sorted(order[start : start + size * _BUCKET], key=lengths.__getitem__)
            cut = [bucket[first : first + size] for first in range(0, len(bucket), size)]
            random.shuffle(cut)
            yield from ([examples[index] for index in batch] for batch in cut)


def padded(sequences: Sequence[Sequence[int]], value: int) -> Tensor:
    """LongTensor[batch, longest], filled up on the right; causal attention needs no mask for that."""
    width = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (width - len(sequence))] for sequence in sequences])


def language_model_loss(model: LlamaForCausalLM, batch: Sequence[tuple[list[int], list[int]]]) -> Tensor:
    """Mean cross-entropy of the next token over (ids, labels) examples; labels are IGNORED where nothing is learnt."""
    ids = padded([example[0] for example in batch], 0).to(model.device)
    labels = padded([example[1] for example in batch], IGNORED)[:, 1:].to(model.device)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    learnt = labels != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learnt]), labels[learnt])


def train(
    model: LlamaForCausalLM,
    phase: str,
    settings: Optimisation,
    source: Iterator[list[Example]],
    loss_of: Callable[[LlamaForCausalLM, list[Example]], Tensor],
) -> list[dict[str, Any]]:
    """Train in place; returns rows of records.LOSSES, one per step."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in (bar := tqdm(range(settings.steps), desc=phase, unit="step", mininterval=1.0)):
        rate = settings.learning_rate * _schedule(step, settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, next(source))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append({"phase": phase, "step": step, "loss": loss.item(), "learning_rate": rate})
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()
    return losses


def _schedule(step: int, steps: int) -> float:
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
