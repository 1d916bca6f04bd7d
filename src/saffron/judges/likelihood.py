"""How likely the policy finds the answers that were searched: a measurement, no verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saffron.judges.base import Answer, Judgement, Kind, Models


def judge(answers: Sequence[Answer], settings: Any, models: Models) -> list[Judgement]:
    """Mean log-probability per token (nats) of each output after its prompt, as the policy reads it (prefill included)."""
    import torch
    from torch.nn.functional import log_softmax

    policy, prompts = models.lm("policy"), models.formats.encode(models.tokenizer, [answer.prompt for answer in answers])
    rows = [
        [*models.formats.policy.prompt(prompt), *answer.prefill_ids, *answer.output_ids]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *([0] * (longest - len(row)))] for row in rows], device=policy.device)
    with torch.no_grad():
        found = log_softmax(policy(input_ids=ids).logits[:, :-1].double(), -1).gather(2, ids[:, 1:, None])[..., 0]
    means = [
        float(values[len(row) - len(answer.output_ids) - 1 : len(row) - 1].mean())
        for values, row, answer in zip(found, rows, answers, strict=True)
    ]
    return [Judgement(score=mean) for mean in means]


KIND = Kind(
    summary="the policy's mean log-probability per token of the output, in nats: a measurement, no verdict",
    judge=judge,
    reads=lambda settings: frozenset({"policy"}),
    measures=True,
)
