"""No defense: one sample, no PRM call."""

from __future__ import annotations

from collections.abc import Sequence

from saffron.config import NoDefense
from saffron.methods.base import RandomKey, SearchModels, SearchPrompt, SearchResult
from saffron.methods.sampling import SampleCost, draw_samples


def no_defense(
    models: SearchModels,
    prompts: Sequence[SearchPrompt],
    settings: NoDefense,
    budgets: Sequence[int],
    *,
    key: RandomKey,
    max_new_tokens: int,
    record_tree: bool = False,
) -> list[SearchResult]:
    """The first sample of Best-of-N, unscored; the only budget is 0."""
    samples = draw_samples(models, prompts, 1, key=key, max_new_tokens=max_new_tokens)
    policy = SampleCost.of(models, prompts, samples).policy[:, 0].tolist()
    executed = samples.ledger.executed.tolist()
    outputs = [row[0][: length[0]] for row, length in zip(samples.tokens.tolist(), samples.lengths.tolist(), strict=True)]
    return [
        SearchResult(
            prompt_id=prompt.prompt_id,
            budget=budget,
            output_ids=outputs[i],
            reward=None,
            finished=outputs[i][-1] == models.formats.eos_id,
            flops_policy=policy[i],
            flops_reward=0.0,
            flops_executed_policy=executed[i],
            flops_executed_reward=0.0,
            reward_calls=0,
        )
        for budget in budgets
        for i, prompt in enumerate(prompts)
    ]
