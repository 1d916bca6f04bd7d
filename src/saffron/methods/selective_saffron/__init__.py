"""Selective Saffron-1: the policy's own sample stands unless its predicted reward falls below a threshold.

The idea of StepMix and EpsMix (arXiv 2306.06265), which mix a known policy with an exploring one so that each episode is good
enough, brought to inference: the known policy is the undefended one, and what explores is the search.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from saffron.methods import saffron
from saffron.methods.base import Method, Size
from saffron.methods.cost import grown, judged


class Settings(saffron.Settings):
    """The policy's own sample, or a search where that is predicted to be unsafe (the idea of arXiv 2306.06265)."""

    threshold: float = Field(
        0.0, description="the sample stands if its reward, predicted by the search's reward model, is not below this"
    )


def cost(settings: Settings, size: Size) -> tuple[float, float]:
    """A sample and the reading of it for every prompt; a search for all of them, or as often as a finished run has counted."""
    length = size.new_tokens
    policy = grown(size.policy, size.policy_prompt, length - 1, length - 1)
    prompt, reward = size.mrm_prompt, grown(size.guard, size.mrm_prompt, length - 1, length - 1)
    if settings.scorer == "prm":
        prompt = size.guard_prompt
        reward = judged(size.guard, prompt, length, 1, length, length, size.guard_suffix)
    if size.calls is not None and size.calls < 2:  # a search has a call of its own for its first token
        return policy, reward
    searched = saffron.cost(settings, size if size.calls is None else replace(size, calls=size.calls - 1))
    prompts = grown(size.policy, size.policy_prompt, 0, 0), grown(size.guard, prompt, 0, 0)  # read once for both parts
    return policy + searched[0] - prompts[0], reward + searched[1] - prompts[1]


METHOD = Method(
    settings=Settings,
    search="saffron.methods.selective_saffron.search:search",
    label="Selective Saffron-1",
    order=70,
    colour="#882255",
    marker="P",
    budget="width",
    reads=saffron.reads,
    cost=cost,
    draws=True,
    loaded_in_paper=saffron.METHOD.loaded_in_paper,
    loaded_in_release=saffron.METHOD.loaded_in_release,
    may_lack_reward=saffron.METHOD.may_lack_reward,
)
