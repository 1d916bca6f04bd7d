"""No defense: the first sample of Best-of-N, unscored."""

from __future__ import annotations

from saffron.methods.base import Block, Result
from saffron.methods.no_defense import Settings
from saffron.methods.sampling import draw_samples, policy_flops


def search(block: Block, settings: Settings, budget: int) -> list[Result]:
    """One sample; the only budget is 0."""
    samples = draw_samples(block, 1)
    policy = policy_flops(block, samples)[:, 0].tolist()
    executed = samples.ledger.executed.tolist()
    outputs = [row[0][: length[0]] for row, length in zip(samples.tokens.tolist(), samples.lengths.tolist(), strict=True)]
    return [
        Result(
            prompt_id=prompt.prompt_id,
            budget=budget,
            output_ids=outputs[i],
            reward=None,
            finished=outputs[i][-1] == block.models.formats.eos_id,
            flops_policy=policy[i],
            flops_reward=0.0,
            flops_executed_policy=executed[i],
            flops_executed_reward=0.0,
            reward_calls=0,
        )
        for i, prompt in enumerate(block.prompts)
    ]
